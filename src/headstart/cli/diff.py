"""``headstart diff``: what two snapshots differ in."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from headstart import plain, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import difference, snapshot
from headstart.repository.difference import Difference

#: Extents of one disk that are shown to people.
_SHOWN = 20


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "diff", run, "Tell which parts of the disks differ between two snapshots.")
    parser.add_argument("before", metavar="A", help="an id, the beginning of one, or NAME@latest")
    parser.add_argument("after", metavar="B", help="another one, of the same VM or not")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.repository(structure_is_enough=True) as repo:
        before, after = (snapshot.resolve(repo, name) for name in (given.before, given.after))
        found = list(difference.between(repo, before, after))
    values = {"before": before.id, "after": after.id, "disks": [_values(each) for each in found]}
    session.output.result(values, "\n".join(line for each in found for line in _lines(each)))


def _values(found: Difference) -> dict[str, Any]:
    return {
        "name": found.disk,
        "size_before": found.size_before,
        "size_after": found.size_after,
        "changed_bytes": found.changed_bytes,
        "extents": [[extent.start, extent.length] for extent in found.extents],
    }


def _lines(found: Difference) -> Iterator[str]:
    sizes = [None if size is None else units.format_bytes(size) for size in (found.size_before, found.size_after)]
    match sizes:
        case [None, size]:
            size = f"{size}, only in the second"
        case [size, None]:
            size = f"{size}, only in the first"
        case [old, new]:
            size = f"{new}" if found.size_before == found.size_after else f"{old}, then {new}"
    count = len(found.extents)
    changed = f"{units.format_bytes(found.changed_bytes)} in {count} extent{'s' if count > 1 else ''}"
    yield plain.line(f"{found.disk}  {size}: {changed if count else 'the same content'}")
    shown = [(str(extent.start), str(extent.length)) for extent in found.extents[:_SHOWN]]
    if shown:
        yield from (f"  {line}" for line in text.table(("START", "LENGTH"), shown).splitlines())
    if count > _SHOWN:
        yield f"  and {count - _SHOWN} more: --json tells them all"
