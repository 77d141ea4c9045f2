"""``headstart stats``: how much there is, and whose it is."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

from headstart import errors, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import stats
from headstart.repository.stats import Stats

_HEADINGS = ("VM", "SNAPSHOTS", "DISKS", "DATA", "NEEDED", "STORED", "ALONE")


def add(verbs: arguments.Verbs) -> None:
    arguments.add_verb(verbs, "stats", run, "Tell how much is protected and stored, and what each VM has of it.")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.repository(structure_is_enough=True) as repo, session.output.progress() as progress:
        found = stats.take(repo, lambda done, total: progress("walking trees", done, total))
    session.output.result(_values(found), "\n".join(_lines(found)))
    if found.damaged:
        names = sorted({str(error.facts["object"]) for error in found.damaged})
        raise errors.Incomplete(
            f"Left out, because damaged or missing: {', '.join(names[:10])}. 'headstart verify' tells all of it.",
            objects=names,
        )


def _values(found: Stats) -> dict[str, Any]:
    told = {name: dataclasses.asdict(getattr(found, name)) for name in ("protected", "content", "trees", "spare")}
    return told | {
        "stored": found.stored,
        "deduplication": found.deduplication,
        "compression": found.compression,
        "objects": {name: dataclasses.asdict(each) for name, each in found.objects.items()},
        "vms": [dataclasses.asdict(each) for each in found.vms],
    }


def _lines(found: Stats) -> Iterator[str]:
    rows = [
        (
            each.vm,
            str(each.protected.snapshots),
            *(units.format_bytes(size) for size in (each.protected.size, each.protected.data)),
            *(units.format_bytes(size) for size in (each.needed.bytes, each.needed.stored, each.alone.stored)),
        )
        for each in found.vms
    ]
    yield from text.table(_HEADINGS, rows).splitlines()
    yield ""
    yield (
        f"{found.protected.snapshots} snapshots of disks with {units.format_bytes(found.protected.size)}, "
        f"{units.format_bytes(found.protected.data)} of it data."
    )
    if found.deduplication and found.compression:
        yield (
            f"{units.format_bytes(found.content.bytes)} of that differ (deduplication {found.deduplication:.1f}), "
            f"and take {units.format_bytes(found.content.stored)} (compression {found.compression:.1f})."
        )
    yield (
        f"Stored: {units.format_bytes(found.stored)}, {units.format_bytes(found.trees.stored)} of it trees, "
        f"{units.format_bytes(found.spare.stored)} of it needed by no snapshot."
    )
