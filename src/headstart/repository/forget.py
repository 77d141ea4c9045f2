"""Forgetting: snapshots are taken back, by rules or by name. Their space is freed when garbage is collected.

The twin goes first, then the manifest, then labels and proofs: killed anywhere, it is repeated.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from headstart import errors
from headstart.repository import label, layout, lease, proof, retention, snapshot
from headstart.repository.label import Labels
from headstart.repository.loss import Loss
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.repository.retention import NO_RULES, Candidate, Rules
from headstart.repository.snapshot import Listing


@dataclass(frozen=True, slots=True)
class Order:
    """``rules`` hold for each VM by itself; ``vms`` and ``tags``: only for snapshots of these, which have all of these
    (none: for all). ``ids`` are forgotten whatever the rules say. ``now`` in seconds since 1970, UTC. ``dry_run``: tell
    what would be done."""

    now: float
    zone: tzinfo
    rules: Rules = NO_RULES
    vms: Collection[str] = ()
    tags: Collection[str] = ()
    ids: Sequence[str] = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reasons`` for keeping it; none: it is forgotten."""

    manifest: Manifest
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Of the snapshots that were looked at, oldest first by VM. ``damaged`` have manifests that cannot be read: nothing
    was decided on them. ``unknown``: VMs that were named, and of which there is no snapshot."""

    verdicts: tuple[Verdict, ...]
    damaged: tuple[errors.Damaged, ...]
    dry_run: bool
    unknown: tuple[str, ...] = ()

    @property
    def forgotten(self) -> tuple[Manifest, ...]:
        return tuple(each.manifest for each in self.verdicts if not each.reasons)

    @property
    def kept(self) -> tuple[Verdict, ...]:
        return tuple(each for each in self.verdicts if each.reasons)


def forget(repo: Repository, order: Order) -> Report:
    """Raises ``lease.Held`` when somebody else forgets or collects, ``Usage`` for a protected id, and what the store
    raises."""
    if order.dry_run:
        return _decide(repo, order, snapshot.all_manifests(repo))
    with lease.collecting(repo, "forget"):
        listing = snapshot.all_manifests(repo)
        report = _decide(repo, order, listing)
        _note_newest(repo, report.forgotten, listing.manifests, order.now)
        stayed = _remove(repo, report.forgotten)
        return replace(report, verdicts=tuple(_put_right(each, stayed) for each in report.verdicts))


def _decide(repo: Repository, order: Order, listing: Listing) -> Report:
    labels = label.all_labels(repo)
    chosen = {each.id: each for each in listing.manifests if _is_meant(each, labels.get(each.id, label.NONE), order)}
    candidates = [
        Candidate(each.id, each.vm, each.created, labels.get(each.id, label.NONE).protected) for each in chosen.values()
    ]
    if order.ids:
        _refuse_protected(order.ids, labels)
        reasons: dict[str, tuple[str, ...]] = {}
    else:
        decided = retention.decide(candidates, order.rules, order.now, order.zone)
        reasons = {each.id: each.reasons for each in decided.kept}
    ordered = sorted(chosen.values(), key=lambda each: (each.vm, each.created, each.id))
    verdicts = tuple(Verdict(each, reasons.get(each.id, ())) for each in ordered)
    there = {each.vm for each in listing.manifests}
    return Report(verdicts, listing.damaged, order.dry_run, tuple(each for each in order.vms if each not in there))


def _is_meant(manifest: Manifest, labels: Labels, order: Order) -> bool:
    if order.ids:
        return manifest.id in order.ids
    return (not order.vms or manifest.vm in order.vms) and labels.tags.issuperset(order.tags)


def _refuse_protected(ids: Sequence[str], labels: Mapping[str, Labels]) -> None:
    protected = [each for each in ids if labels.get(each, label.NONE).protected]
    if protected:
        raise errors.Usage(
            f"Protected, and nothing was forgotten: {', '.join(protected)}. Use 'headstart unprotect' first.",
            snapshots=protected,
        )


def _remove(repo: Repository, forgotten: Iterable[Manifest]) -> set[str]:
    """The ids of those that stay: somebody has come to protect them meanwhile."""
    stayed = set()
    for each in forgotten:
        if label.of(repo, each.id).protected:
            stayed.add(each.id)
            continue
        repo.store.delete(snapshot.twin_of(each.id))
        repo.store.delete(snapshot.key_of(each.id))
        label.drop(repo, each.id)
        proof.drop(repo, each.id)
    return stayed


def _put_right(verdict: Verdict, stayed: Collection[str]) -> Verdict:
    return replace(verdict, reasons=("protected",)) if verdict.manifest.id in stayed else verdict


def _note_newest(repo: Repository, forgotten: Sequence[Manifest], manifests: Iterable[Manifest], now: float) -> None:
    """Hosts remember what they published last, and would miss it: so it is said that it is gone on purpose."""
    going = {each.id for each in forgotten}
    newest: dict[tuple[str, str], float] = {}
    for each in manifests:
        if each.id not in going:
            whose = (each.vm, each.installation)
            newest[whose] = max(each.created, newest.get(whose, 0.0))
    names = [
        name
        for each in forgotten
        if each.created >= newest.get((each.vm, each.installation), 0.0)
        for name in (snapshot.twin_of(each.id), snapshot.key_of(each.id))
    ]
    if names:
        repo.holdings.lose(Loss(os.urandom(layout.OBJECT_ID_LENGTH).hex(), now, objects=tuple(names)))
