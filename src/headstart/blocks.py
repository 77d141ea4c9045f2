"""Sets of blocks of one disk, by block number, as compressed bitmaps.

A ``Blocks`` is a Roaring bitmap (Lemire et al., "Roaring Bitmaps: Implementation of an Optimized
Software Library", 2018): a million scattered blocks take about 2 MB, a whole 6 TiB disk a few KB.
Block numbers are 32 bits wide: 256 TiB with blocks of 64 KiB.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from pyroaring import BitMap

from headstart.extents import Extent

Blocks = BitMap


def count_of(size: int, block_size: int) -> int:
    """Blocks of a disk of ``size`` bytes; the last may be short."""
    return -(-size // block_size)


def everything(size: int, block_size: int) -> Blocks:
    blocks = Blocks()
    if size:
        blocks.add_range(0, count_of(size, block_size))
    return blocks


def of_extents(extents: Iterable[Extent], block_size: int) -> Blocks:
    """Every block that an extent touches."""
    blocks = Blocks()
    for extent in extents:
        blocks.add_range(extent.start // block_size, count_of(extent.end, block_size))
    return blocks


def runs(blocks: Blocks) -> Iterator[tuple[int, int]]:
    """``(first, count)`` of each unbroken run, ascending; cost grows with the runs, not the blocks."""
    last = blocks.max() if blocks else -1
    position = 0
    while position <= last:
        first = blocks.next_set_bit(position)
        count = _run_length(blocks, first, last)
        yield first, count
        position = first + count


def _run_length(blocks: Blocks, first: int, last: int) -> int:
    """Gallop to the end of the run at ``first``, then bisect. ``last`` is that of the set.

    ``contains_range`` leaves out what needs more than 32 bits: beyond the last block there is, it finds everything.
    """
    good, step = 1, 1
    while first + good <= last and blocks.contains_range(first, first + good + step):
        good += step
        step *= 2
    bad = good + step
    while bad - good > 1:
        middle = (good + bad) // 2
        if blocks.contains_range(first + good, first + middle):
            good = middle
        else:
            bad = middle
    return min(good, last + 1 - first)


def to_extents(blocks: Blocks, block_size: int, size: int) -> Iterator[Extent]:
    """The set as extents, ascending, neighbours joined, the last cut at ``size``."""
    for first, count in runs(blocks):
        start = first * block_size
        end = min((first + count) * block_size, size)
        if start < end:
            yield Extent(start, end - start)


def length_of(block: int, block_size: int, size: int) -> int:
    """Bytes of one block of a disk of ``size`` bytes."""
    return min(block_size, size - block * block_size)


def total_bytes(blocks: Blocks, block_size: int, size: int) -> int:
    """Bytes that the set covers on a disk of ``size`` bytes."""
    if not blocks:
        return 0
    last = count_of(size, block_size) - 1
    total = len(blocks) * block_size
    if size % block_size and last in blocks:
        total -= block_size - size % block_size
    return total


def sample(blocks: Blocks, count: int, source: random.Random) -> Blocks:
    """``count`` members drawn at random without replacement (all, if there are no more)."""
    if len(blocks) <= count:
        return blocks.copy()
    return Blocks([blocks[index] for index in source.sample(range(len(blocks)), count)])
