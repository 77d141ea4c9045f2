"""What the store has lost of what it had acknowledged: found before anything is published that needs it.

A lost pack is told by a listing, whoever lost it: the store, its disk, or a collector of garbage. What the draft had
in it remains to be copied, as if it had never been; the base marks still know of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from headstart import errors
from headstart.backup.context import Context
from headstart.blocks import Blocks

NONE: frozenset[str] = frozenset()


class Lost(errors.StoreFailed):
    """Nothing was published."""


class Swept(Lost):
    """A collector of garbage deletes what the backup was to be built on, and did not know of it. All of it is still at
    hand: build again."""


def missing(context: Context, vm: str, disk: str) -> Blocks:
    """Blocks of the draft whose chunks are in no pack that is known to be there."""
    return Blocks(
        block
        for block, chunk in context.journal.copied_chunks(vm, disk)
        if chunk is not None and chunk not in context.repository
    )


def require_none(context: Context, vm: str, disks: Iterable[str], put: Set[str] = NONE, used: Set[str] = NONE) -> None:
    """All that a completion of these disks needs of the draft, and the packs ``put`` for it, are in the store. ``used``
    are packs that the draft is in.

    Raises ``Lost``. If content is gone, the completion is given up: the point in time that had it is over. Raises
    ``Swept`` if nothing is gone but packs ``put``, and a collector has them."""
    lost = context.repository.gone(put | used)  # also what another run, which shares the index, found before
    if not lost:
        return
    gone = {disk: missing(context, vm, disk) for disk in disks}
    if any(gone.values()):
        context.journal.abandon_completion(vm, gone)
        raise _lost(context, lost)
    if put & lost:
        raise _lost(context, put & lost, at_hand=True)


def _lost(context: Context, packs: Set[str], *, at_hand: bool = False) -> Lost:
    swept = {pack.hex() for pack in context.repository.holdings.swept(map(bytes.fromhex, packs))}
    if packs <= swept:
        return (Swept if at_hand else Lost)(
            f"A collector of garbage deletes what the backup was to be built on ({len(packs)} packs): nothing was"
            " published. Back up again: what is missing is copied again.",
            packs=sorted(packs),
        )
    return Lost(
        f"The store has lost what it had acknowledged ({len(packs)} packs, one of them {min(packs)}): nothing was"
        " published. Check the disk below it. Back up again: what is missing is copied again.",
        packs=sorted(packs),
    )
