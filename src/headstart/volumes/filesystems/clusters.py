"""Which cluster of a file follows which: the table of FAT and of exFAT.

Neither has holes: a file whose clusters end before it does, or turn back, is damaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from headstart.volumes.filesystem import Malformed, Run, Source

_PAGE = 65536
#: What ends a file is one of this many numbers, the highest.
_ENDS = 8


class Clusters:
    """Any number may stand in the table. Raises ``Malformed``."""

    def __init__(self, source: Source, table: int, bits: int, heap: int, size: int, count: int) -> None:
        """``bits``: of an entry of the table; ``heap``: where the clusters begin, of ``size`` bytes each."""
        self.source, self.heap, self.size, self.count = source, heap, size, count
        self._table, self._bits = table, bits
        self._page = (-1, b"")

    def place(self, cluster: int) -> int:
        if not 2 <= cluster < self.count + 2:
            raise Malformed("a file of which it cannot be told where it lies")
        return self.heap + (cluster - 2) * self.size

    def runs(self, first: int, length: int, *, is_chained: bool = True) -> tuple[Run, ...]:
        """``is_chained``: else they lie in a row."""
        needed = -(-length // self.size)
        if not needed:
            return ()
        if not is_chained:
            self.place(first + needed - 1)
            return (Run(0, needed * self.size, self.place(first)),)
        found: list[tuple[int, int]] = []
        cluster = first
        for number in range(min(needed, self.count + 1)):
            cluster = self.following(cluster) if number else first
            self.place(cluster)
            if found and sum(found[-1]) == cluster:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((cluster, 1))
        if any(sum(before) > after for before, (after, _) in itertools.pairwise(sorted(found))):
            raise Malformed("a file that is a part of itself")
        return tuple(self._told(found))

    def chain(self, first: int, most: int) -> Iterator[tuple[int, bytes]]:
        """The clusters of a directory, of at most so many bytes: where they lie, and what is in them."""
        cluster = first
        for _ in range(0, most, self.size):
            place = self.place(cluster)
            block = self.source.read(place, self.size)
            if len(block) < self.size:
                raise Malformed("a directory that lies outside of its volume")
            yield place, block
            cluster = self.following(cluster)
            if cluster >= self._mask - _ENDS + 1:
                return
        raise Malformed("a directory without an end")

    @property
    def _mask(self) -> int:
        return (1 << self._bits) - 1

    def _told(self, found: list[tuple[int, int]]) -> Iterator[Run]:
        start = 0
        for cluster, count in found:
            yield Run(start, count * self.size, self.place(cluster))
            start += count * self.size

    def following(self, cluster: int) -> int:
        if self._bits == 12:
            pair = self._entry(cluster * 3 // 2, 2)
            return pair >> 4 if cluster % 2 else pair & self._mask
        # 28 bits stand in four bytes.
        width = -(-self._bits // 16) * 2
        return self._entry(cluster * width, width) & self._mask

    def _entry(self, at: int, length: int) -> int:
        number, inside = divmod(at, _PAGE)
        if number != self._page[0]:
            self._page = (number, self.source.read(self._table + number * _PAGE, _PAGE))
        found = self._page[1][inside : inside + length]
        if len(found) < length:
            raise Malformed("a file of which it cannot be told where it lies")
        return int.from_bytes(found, "little")
