"""The state of the blocks that the workload changes, after any number of its writes, computed without the guest.

The workload is a function of its seed: which block it writes when, and what. So the restored disks tell how many writes
they hold, and every byte of every changed block is known for this number, over both disks.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.scene import COMPRESSIBLE, HOT, HOT_SHARE, WRITE_SIZE
from tests.kit.inguest import churn

_STAMP = struct.Struct("<QQ")


class Region(NamedTuple):
    """Where a region of the workload lies in a restored file."""

    file: Path
    offset: int
    length: int


class Place(NamedTuple):
    file: Path
    offset: int


class NotOneState(Exception):
    """What was restored is no state that the guest's disks had."""


def verify(regions: Sequence[Region], seed: int, acknowledged: tuple[int, int]) -> int:
    """The number of writes that the regions hold: every byte of them is as after exactly these writes.

    ``acknowledged``: bytes known to be on the disks before, and after, the point in time. Raises ``NotOneState``.
    """
    least, most = (count // WRITE_SIZE for count in acknowledged)
    most += 1  # one may have been under way
    writes = _newest(regions, seed, most)
    if not least <= writes <= most:
        raise NotOneState(f"{writes} writes were restored; {least} had been acknowledged before, {most} after")
    _compare(regions, seed, writes)
    return writes


def _places(regions: Sequence[Region]) -> list[Place]:
    return [
        Place(file, start)
        for file, offset, length in regions
        for start in range(offset, offset + length - WRITE_SIZE + 1, WRITE_SIZE)
    ]


def _order(regions: Sequence[Region], seed: int) -> Iterator[Place]:
    """As in ``tests.kit.inguest.churn.Churn``."""
    source = random.Random(seed)
    places = _places(regions)
    source.shuffle(places)
    hot = places[: max(1, int(len(places) * HOT))]
    first, cold = iter(hot), iter(places[len(hot) :])
    while True:
        chosen = first if source.random() < HOT_SHARE else cold
        yield next(chosen, None) or source.choice(hot)


def _blocks(seed: int, count: int) -> Iterator[bytes]:
    made = churn.Content(seed, WRITE_SIZE, COMPRESSIBLE)
    return (made.next() for _ in range(count))


def _newest(regions: Sequence[Region], seed: int, most: int) -> int:
    """One more than the number of the newest write found."""
    stamps = {block[: _STAMP.size] for block in _blocks(seed, most)}
    found = [stamp for stamp in _stamps(regions) if stamp in stamps]
    return max((_STAMP.unpack(stamp)[0] + 1 for stamp in found), default=0)


def _stamps(regions: Sequence[Region]) -> Iterator[bytes]:
    for file, offset, length in regions:
        with file.open("rb") as opened:
            for start in range(offset, offset + length, WRITE_SIZE):
                opened.seek(start)
                yield opened.read(_STAMP.size)


def _compare(regions: Sequence[Region], seed: int, writes: int) -> None:
    last = {place: number for number, place in zip(range(writes), _order(regions, seed), strict=False)}
    if len(last) != len(_places(regions)):
        raise NotOneState("not every block had been changed: there is nothing to compare the others with")
    written = {number: place for place, number in last.items()}
    for number, block in enumerate(_blocks(seed, writes)):
        place = written.get(number)
        if place is not None and _read(place) != block:
            raise NotOneState(f"{place.file} at {place.offset} does not hold write {number}, of {writes}")


def _read(place: Place) -> bytes:
    with place.file.open("rb") as file:
        file.seek(place.offset)
        return file.read(WRITE_SIZE)
