"""Taking snapshots back: by the retention of the tenant's policies, or by name. The server's clock decides."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import delete

from headstart.batches import batched
from headstart.host.policy import Policy
from headstart.repository import forget, layout, snapshot
from headstart.repository.forget import Order
from headstart.repository.repo import Repository
from headstart.server import rules, structure, tables
from headstart.server.jobs import Job
from headstart.server.repositories import Place
from headstart.server.site import Site
from headstart.server.work.contract import Beat, place_of
from headstart.store.contract import Missing

_BATCH, _TOLD = 500, 1000


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """Of the argument ``snapshots``; else, by the rules, of ``vms``; without those, of all. Raises ``Usage`` for one
    that is protected."""
    place = place_of(site, job)
    with structure.open_repository(site, place, beat) as repo:
        named = job.arguments.get("snapshots")
        beat("looking for snapshots")
        vms = job.arguments.get("vms")
        chosen, unclear = (set(map(str, named)), {}) if named else _by_rules(site, place, repo, vms)
        locked = {each for each in chosen if _is_locked(repo, each)}
        going = sorted(chosen - locked)
        beat("forgetting", 0, len(going))
        done = forget.forget(repo, Order(site.clock(), datetime.UTC, ids=going)) if going else None
        # What somebody protected meanwhile, or what is damaged, is there still.
        stayed = {name.removeprefix(layout.SNAPSHOTS) for name, _ in repo.store.list(layout.SNAPSHOTS)}
        gone = [each.id for each in done.forgotten if each.id not in stayed] if done else []
    _drop(site, place, (each for each in going if each not in stayed))
    return {
        "forgotten": gone[:_TOLD],
        "count": len(gone),
        "locked": sorted(locked)[:_TOLD],
        "unclear": dict(list(unclear.items())[:_TOLD]),
    }


def _by_rules(
    site: Site, place: Place, repo: Repository, vms: Collection[str] | None
) -> tuple[set[str], dict[str, str]]:
    there = {each.vm for each in snapshot.all_manifests(repo).manifests}
    with site.database.read() as connection:
        found = rules.of_vms(connection, place.tenant, there if vms is None else there & set(vms))
    chosen: set[str] = set()
    for policy, of_it in _by_policy(found.policies):
        wanted = Order(site.clock(), policy.schedule.zone, policy.retention.rules, vms=of_it, dry_run=True)
        chosen.update(each.id for each in forget.forget(repo, wanted).forgotten)
    return chosen, found.unclear


def _by_policy(policies: dict[str, Policy]) -> Iterable[tuple[Policy, list[str]]]:
    """Rules hold for each VM by itself, and the manifests are read once for all VMs of a policy."""
    found: dict[str, tuple[Policy, list[str]]] = {}
    for vm, policy in policies.items():
        if policy.retention.rules:
            found.setdefault(policy.name, (policy, []))[1].append(vm)
    return found.values()


def _is_locked(repo: Repository, snapshot_id: str) -> bool:
    locks = repo.store.locks()
    if locks is None or not locks.available():
        return False
    for name in (snapshot.key_of(snapshot_id), snapshot.twin_of(snapshot_id)):
        with contextlib.suppress(Missing):
            if locks.locked_until(name) > repo.store.clock():
                return True
    return False


def _drop(site: Site, place: Place, ids: Iterable[str]) -> None:
    its = tables.snapshots.c
    with site.database.write() as connection:
        for batch in batched(sorted(set(ids)), _BATCH):
            mine = (its.tenant == place.tenant, its.repository == place.id, its.id.in_(batch))
            connection.execute(delete(tables.snapshots).where(*mine))
