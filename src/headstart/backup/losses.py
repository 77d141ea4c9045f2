"""What the store has lost of what it had acknowledged: found before anything is published that needs it.

A lost pack is told by a listing, whoever lost it: the store, its disk, or a collector of garbage. What the draft had
in it remains to be copied, as if it had never been; the base marks still know of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from headstart import errors
from headstart.backup.context import Context
from headstart.blocks import Blocks


class Lost(errors.StoreFailed):
    """Nothing was published."""


def missing(context: Context, vm: str, disk: str) -> Blocks:
    """Blocks of the draft whose chunks are in no pack that is known to be there."""
    return Blocks(
        block
        for block, chunk in context.journal.copied_chunks(vm, disk)
        if chunk is not None and chunk not in context.repository
    )


def require_none(context: Context, vm: str, disks: Iterable[str], put: Iterable[str] = ()) -> None:
    """All that a completion of these disks needs of the draft, and the packs ``put`` for it, are in the store.

    Raises ``Lost``. If content is gone, the completion is given up: the point in time that had it is over."""
    lost = context.repository.drop_lost()
    if not lost:
        return
    gone = {disk: missing(context, vm, disk) for disk in disks}
    if any(gone.values()):
        context.journal.abandon_completion(vm, gone)
    elif lost.isdisjoint(put):
        return
    raise Lost(
        f"The store has lost what it had acknowledged ({len(lost)} packs, one of them {min(lost)}): nothing was"
        " published. Check the disk below it. Back up again: what is missing is copied again.",
        packs=sorted(lost),
    )
