"""Extents: half open ranges of bytes on a disk.

::

    bytes    0        65536     131072    196608
    blocks   |---0----|---1-----|---2-----|--        the last block of a disk may be short
    extent        [start ........ end)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """``length`` bytes from ``start``; never empty, never negative."""

    start: int
    length: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.length <= 0:
            raise ValueError(f"no such extent: {self.start}+{self.length}")

    @property
    def end(self) -> int:
        return self.start + self.length


def merge(extents: Iterable[Extent]) -> list[Extent]:
    """Sorted, with overlapping and touching extents joined."""
    merged: list[Extent] = []
    for extent in sorted(extents):
        if merged and extent.start <= merged[-1].end:
            last = merged[-1]
            merged[-1] = Extent(last.start, max(last.end, extent.end) - last.start)
        else:
            merged.append(extent)
    return merged


def gaps(extents: Iterable[Extent], size: int) -> list[Extent]:
    """What of ``[0, size)`` none of the extents covers."""
    holes: list[Extent] = []
    position = 0
    for extent in merge(extents):
        if extent.start >= size:
            break
        if extent.start > position:
            holes.append(Extent(position, extent.start - position))
        position = extent.end
    if position < size:
        holes.append(Extent(position, size - position))
    return holes


def split(extent: Extent, at_most: int) -> Iterator[Extent]:
    """Pieces of at most ``at_most`` bytes, cut at multiples of ``at_most`` from 0."""
    start = extent.start
    while start < extent.end:
        end = min((start // at_most + 1) * at_most, extent.end)
        yield Extent(start, end - start)
        start = end


def portions(wanted: Iterable[Extent], at_most: int) -> Iterator[list[Extent]]:
    """The same bytes in the same order, in lists of ``at_most`` bytes. Longer extents are cut at multiples of that."""
    portion: list[Extent] = []
    room = at_most
    for extent in wanted:
        for part in split(extent, at_most):
            if part.length > room:
                yield portion
                portion, room = [], at_most
            portion.append(part)
            room -= part.length
    if portion:
        yield portion
