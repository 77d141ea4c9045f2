"""Proof from the bytes of disk images that they are one point in time of a running guest.

The ledger workload writes records 1, 2, 3 ... in turn to the disks, and begins none before the one before it is on its
disk. So there is exactly one right content of all slots on all disks after k records, and a point in time is: the
records 1 to k whole, record k+1 in whole or in part or not at all, nothing later::

    disk 0   | 5 | 1 | 7 |           right: k = 7, or k = 6 and record 7 torn
    disk 1   | 2 | 6 | 4 |
    disk 1   | 2 | 0 | 4 |           wrong: record 6 is missing, though record 7 was begun after it was on its disk
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.kit.inguest import records


class LedgerBroken(AssertionError):
    """The images are no point in time, or not the one that was asked for."""


@dataclass(frozen=True, slots=True)
class State:
    """Records 1 to ``last`` are there in whole; with ``torn`` a part of the next one is there too."""

    last: int
    torn: bool


def check(
    layout: records.Layout,
    images: Sequence[Path],
    *,
    acknowledged: int = 0,
    begun: int | None = None,
) -> State:
    """The state that raw images (one per disk of the ledger, in its order) are in.

    ``acknowledged``: records known to be on the disks before the point in time. ``begun``: no record after this one
    had been begun at the point in time (the number acknowledged at any time afterwards, plus one, is such a bound).
    """
    assert len(images) == layout.disks, f"the ledger has {layout.disks} disks, not {len(images)}"
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(image.open("rb")) for image in images]
        found = _read(layout, files)
    newest = max(max(_numbers(layout, place, content)) for place, content in found.items())
    state = _state(layout, found, newest)
    if state.last < acknowledged:
        raise LedgerBroken(f"the images end with record {state.last}, but {acknowledged} was acknowledged before")
    if begun is not None and newest > begun:
        raise LedgerBroken(f"the images hold a part of record {newest}, but {begun} was the last one begun")
    return state


Found = dict[tuple[int, int], bytes]


def _read(layout: records.Layout, files: Sequence[BinaryIO]) -> Found:
    found = {}
    for disk, file in enumerate(files):
        for slot in range(layout.slots):
            file.seek(layout.position(slot))
            found[disk, slot] = file.read(layout.record)
    return found


def _numbers(layout: records.Layout, place: tuple[int, int], content: bytes) -> list[int]:
    """The record number in each sector of a slot."""
    numbers = []
    for sector, number in enumerate(records.numbers(content, layout.seed)):
        if number is None:
            disk, slot = place
            raise LedgerBroken(f"sector {sector} of slot {slot} on disk {disk} holds nothing that was written")
        numbers.append(number)
    return numbers


def _state(layout: records.Layout, found: Found, newest: int) -> State:
    """Compare all slots with what they held before ``newest`` was begun, and its own slot with both."""
    if newest == 0:
        return State(0, torn=False)
    history = records.History(layout)
    history.advance(newest - 1)
    its_place = layout.place(newest)
    before = history.content(*its_place)
    wrong = [place for place in found if place != its_place and found[place] != history.content(*place)]
    if wrong:
        raise LedgerBroken(_message(layout, found, history, wrong, newest))
    history.advance(newest)
    after = history.content(*its_place)
    for start in range(0, layout.record, records.SECTOR):
        sector = slice(start, start + records.SECTOR)
        if found[its_place][sector] not in (before[sector], after[sector]):
            raise LedgerBroken(f"record {newest} at {its_place} holds a sector of neither it nor the one before")
    whole = found[its_place] == after
    return State(newest if whole else newest - 1, torn=not whole)


def _message(
    layout: records.Layout,
    found: Found,
    history: records.History,
    wrong: list[tuple[int, int]],
    newest: int,
) -> str:
    lines = [f"no point in time: record {newest} is there, but {len(wrong)} slots are not as it found them:"]
    for disk, slot in wrong[:10]:
        numbers = sorted(set(_numbers(layout, (disk, slot), found[disk, slot])))
        lines.append(
            f"  disk {disk} slot {slot} (offset {layout.position(slot)}) "
            f"holds {numbers} and not {history.newest(disk, slot)}"
        )
    return "\n".join(lines)
