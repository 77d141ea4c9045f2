"""A trace of writes: what the guest did, of which a policy sees only the blocks that rounds report."""

from __future__ import annotations

import bisect
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart import blocks, units
from headstart.blocks import Blocks
from headstart.load.usual import STEP_SECONDS
from headstart.simulation import rows

MEANING = "seconds since it began, offset and length of a write in bytes"
#: Block numbers have 32 bits.
LARGEST = (1 << 32) * units.BLOCK_SIZE
#: Writes of more blocks are kept as ranges: a list of each of their blocks would be long.
LONG = 64


@dataclass(frozen=True, slots=True)
class Trace:
    """Writes in the order of time. ``moments[i]`` is when ``numbers[i]``, a block, was written to; ``long_moments`` and
    ``ranges`` are long writes (first block, end). ``written``: bytes by number of the ``STEP_SECONDS``."""

    disk_size: int
    moments: array[float]
    numbers: array[int]
    long_moments: array[float]
    ranges: list[tuple[int, int]]
    written: dict[int, int]
    end: float

    def dirty(self, since: float, until: float) -> Blocks:
        """The blocks that were written to at ``since`` or later, and before ``until``."""
        begin, end = (bisect.bisect_left(self.moments, moment) for moment in (since, until))
        found = Blocks(self.numbers[begin:end])
        begin, end = (bisect.bisect_left(self.long_moments, moment) for moment in (since, until))
        for first, last in self.ranges[begin:end]:
            found.add_range(first, last)
        return found


def read(path: Path, disk_size: int | None = None) -> Trace:
    """Of a CSV file. The disk ends where the farthest write does, rounded up to a block, if its size is not given."""
    most = LARGEST if disk_size is None else disk_size
    return of(_checked(path, most), disk_size)


def of(writes: Iterable[tuple[float, int, int]], disk_size: int | None = None) -> Trace:
    """``writes``: seconds, offset, length; in order, not empty, on the disk."""
    moments, numbers, long_moments = array("d"), array("I"), array("d")
    ranges: list[tuple[int, int]] = []
    written: Counter[int] = Counter()
    farthest, moment, size = 0, 0.0, units.BLOCK_SIZE
    for moment, offset, length in writes:
        first, last = offset // size, (offset + length - 1) // size
        written[int(moment // STEP_SECONDS)] += length
        if offset + length > farthest:
            farthest = offset + length
        if first == last:
            moments.append(moment)
            numbers.append(first)
        elif last - first < LONG:
            moments.extend([moment] * (last + 1 - first))
            numbers.extend(range(first, last + 1))
        else:
            long_moments.append(moment)
            ranges.append((first, last + 1))
    if disk_size is None:
        disk_size = blocks.count_of(farthest, size) * size
    return Trace(disk_size, moments, numbers, long_moments, ranges, dict(written), moment)


def _checked(path: Path, most: int) -> Iterable[tuple[float, int, int]]:
    before = 0.0
    for line, (when, where, how_much) in rows.rows(path, 3, MEANING):
        # Millions of rows: what is right is found out in one go, what is wrong with it is told in detail.
        try:
            moment, offset, length = float(when), int(where), int(how_much)
            right = before <= moment <= rows.LATEST and offset >= 0 and 0 < length <= most - offset
        except ValueError:
            right = False
        if not right:
            moment, offset, length = _in_detail(path, line, (when, where, how_much), before, most)
        before = moment
        yield moment, offset, length


def _in_detail(path: Path, line: int, row: tuple[str, str, str], before: float, most: int) -> tuple[float, int, int]:
    moment = rows.seconds(path, line, row[0], before)
    offset, length = rows.whole(path, line, row[1]), rows.whole(path, line, row[2])
    if not length:
        raise rows.wrong(path, line, "a write of 0 bytes")
    if offset + length > most:
        told = units.format_bytes(most)
        raise rows.wrong(
            path, line, f"the write ends at byte {offset + length}, beyond the disk of {told} ({most} bytes)"
        )
    return moment, offset, length
