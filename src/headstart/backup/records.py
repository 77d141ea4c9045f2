"""The draft's records in the repository: what a backup needs is listed there, so that no collector of garbage takes it.

A record is a sign of life as well. What is recorded *before* it is looked what is being deleted cannot be overlooked by
who deletes: see ``repository.collect``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from headstart.backup.bases import Bases
from headstart.backup.context import Context
from headstart.repository import draft as drafts
from headstart.repository.root import Root
from headstart.state.values import Draft, Tracked

#: Blocks that one object of the draft lists, at most.
RECORD_BLOCKS = 32_768


def record(context: Context, vm: str, draft: Draft, packs: Iterable[str] = ()) -> Draft:
    """List what was copied since the record before, and what the backup builds on. ``packs`` (hex) are durable, and
    what is in them may not be in the journal yet."""
    number, roots = draft.records, base_roots(context, vm, context.journal.tracked(vm).values())
    for entries in context.journal.unrecorded(vm, draft.records, RECORD_BLOCKS):
        number = _add(context, vm, draft, number, entries=entries)
    number = _add(context, vm, draft, number, packs=packs, roots=roots)  # a sign of life, whatever it lists
    return _written(context, vm, draft, number)


def go_on(context: Context, vm: str, packs: Iterable[str]) -> None:
    """``record`` in the middle of a run."""
    draft = context.journal.draft(vm)
    if draft is not None:
        record(context, vm, draft, packs)


def hold(context: Context, vm: str, draft: Draft, disks: Iterable[Tracked]) -> Draft:
    """The snapshots that these disks follow may be forgotten from now on, and the draft is still built on them."""
    roots = base_roots(context, vm, disks)
    return replace(draft, records=_add(context, vm, draft, draft.records, roots=roots)) if roots else draft


def claim(context: Context, vm: str, packs: Iterable[str]) -> None:
    """What is about to be published is in these packs (hex). Raises ``StoreFailed`` if the store has lost the claim."""
    draft = context.journal.draft(vm)
    assert draft is not None, "only called with one that is to be published"
    number = _add(context, vm, draft, draft.records, packs=sorted(packs), put=drafts.claim)
    _written(context, vm, draft, number)


def _written(context: Context, vm: str, draft: Draft, number: int) -> Draft:
    written = replace(context.journal.draft(vm) or draft, records=number)
    context.journal.listed(vm, written)
    return written


def _add(
    context: Context,
    vm: str,
    draft: Draft,
    number: int,
    *,
    packs: Iterable[str] = (),
    entries: Mapping[str, list[tuple[int, bytes]]] | None = None,
    roots: Iterable[Root] = (),
    put: Callable[..., None] = drafts.record,
) -> int:
    """Add an object of the draft; returns the number of the next one. Numbers may be taken by a run that died before
    its journal knew, or that an old copy of the state forgot: what those list is marked as well, which harms nothing.
    """
    stored = drafts.Draft(draft.id, vm, context.host)
    while True:
        try:
            put(context.repository, stored, number, context.clock(), packs, entries, roots)
        except drafts.Taken:
            number += 1
        else:
            return number + 1


def base_roots(context: Context, vm: str, disks: Iterable[Tracked]) -> list[Root]:
    """The trees of the snapshots that these disks follow, as far as they can be told."""
    bases = Bases(context, vm)
    found: list[Root] = []
    for tracked in disks:
        disk = bases.last(tracked)
        if disk is not None and tracked.snapshot is not None:
            found.append(Root(tracked.snapshot, disk.name, disk.size, disk.root))
    return found
