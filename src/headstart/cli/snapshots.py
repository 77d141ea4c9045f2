"""``headstart snapshots``: what can be restored."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from headstart import errors, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import label, lost, proof, snapshot
from headstart.repository.label import Labels
from headstart.repository.loss import Hurt
from headstart.repository.manifest import Manifest
from headstart.repository.proof import Proof


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "snapshots", run, "List the snapshots, oldest first.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of this VM only")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.repository(structure_is_enough=True) as repo:
        listing = snapshot.all_manifests(repo)
        hurt = lost.still_hurt(repo)
        labels = label.all_labels(repo)
        proofs = proof.all_proofs(repo)
    found = [each for each in listing.manifests if given.name in (None, each.vm)]
    damaged = [{"object": error.facts["object"], "message": str(error)} for error in listing.damaged]
    values = {
        "snapshots": [
            _values(each)
            | _labels(labels.get(each.id, label.NONE))
            | {"lost": _lost(hurt.get(each.id, ())), "proofs": list(map(dataclasses.asdict, proofs.get(each.id, ())))}
            for each in found
        ],
        "damaged": damaged,
    }
    rows = [
        (*_row(each), _proven(proofs.get(each.id, ())), _remarks(labels.get(each.id, label.NONE), lost=each.id in hurt))
        for each in found
    ]
    heads = ("SNAPSHOT", "VM", "POINT IN TIME", "CONSISTENCY", "DISKS", "REHEARSED", "")
    session.output.result(values, text.table(heads, rows))
    if damaged:
        raise errors.Incomplete(
            f"{' '.join(map(str, listing.damaged))} Left out of the list. 'headstart verify' tells all that is damaged."
        )


def _row(manifest: Manifest) -> tuple[str, ...]:
    disks = ", ".join(f"{disk.name} {units.format_bytes(disk.size)}" for disk in manifest.disks)
    return (text.short(manifest.id), manifest.vm, text.moment(manifest.created), manifest.consistency, disks)


def _proven(proofs: Sequence[Proof]) -> str:
    """What the last rehearsal has shown, and when."""
    if not proofs:
        return "-"
    last = proofs[-1]
    return f"{text.moment(last.time)} {'passed' if last.passed else 'FAILED'}"


def _remarks(labels: Labels, *, lost: bool) -> str:
    said = [*sorted(labels.tags), *(["protected"] if labels.protected else []), *(["parts are lost"] if lost else [])]
    return ", ".join(said)


def _labels(labels: Labels) -> dict[str, Any]:
    return {"tags": sorted(labels.tags), "protected": labels.protected}


def _lost(hurt: Iterable[Hurt]) -> list[str]:
    """The disks and files of which something is."""
    return sorted({each.name for each in hurt})


def _values(manifest: Manifest) -> dict[str, Any]:
    disks = [
        {
            "name": disk.name,
            "size": disk.size,
            "format": disk.format,
            "serial": disk.serial,
            "interface": disk.interface,
        }
        for disk in manifest.disks
    ]
    return {
        "id": manifest.id,
        "vm": manifest.vm,
        "created": manifest.created,
        "base": manifest.base,
        "consistency": manifest.consistency,
        "host": manifest.host,
        "disks": disks,
        "files": [attached.name for attached in manifest.attachments],
    }
