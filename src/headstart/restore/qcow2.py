"""A disk as a qcow2 file, written by ourselves: what is allocated is known before the first byte is written.

::

    | header | refcount table | refcount blocks | L1 table | L2 tables | data, in the order of the disk ... |

The n-th allocated cluster of the disk is the n-th cluster of the data, so that any thread can write any place at any
time, as in a raw file. All clusters of the file are in use once. Sections 'Header', 'Host cluster management' and
'Cluster mapping' of QEMU's docs/interop/qcow2.txt; numbers are big endian.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from headstart import blocks
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.restore.partfile import PartFile
from headstart.restore.present import Before
from headstart.store.contract import Data
from headstart.units import KIB

CLUSTER = 64 * KIB
CLUSTER_BITS = 16
SECTOR = 512
#: Entries of 8 bytes in a cluster of a table, and reference counts of 16 bits in a block of them.
ENTRIES = CLUSTER // 8
COUNTS = CLUSTER // 2
#: In L1 and L2 entries: the cluster's reference count is exactly one.
COPIED = 1 << 63
_MAGIC = b"QFI\xfb"
_VERSION = 3
_REFCOUNT_ORDER = 4
_HEADER_LENGTH = 104
#: Magic, version, backing file (2), cluster bits, size, encryption, L1 size and offset, refcount table's offset and
#: clusters, snapshots (2), incompatible, compatible and autoclear features, refcount order, header length.
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in the file, in clusters. ``allocated`` are the clusters of the disk that hold data."""

    size: int
    allocated: Blocks
    refcount_table: int
    refcount_blocks: int
    l1_table: int
    l2_tables: int

    @classmethod
    def of(cls, size: int, allocated: Blocks) -> Layout:
        l1_entries = blocks.count_of(size, CLUSTER * ENTRIES)
        l1_table = max(1, blocks.count_of(l1_entries, ENTRIES))
        l2_tables = sum(1 for _ in _tables(allocated))
        fixed = 1 + l1_table + l2_tables + len(allocated)
        refcount_table, refcount_blocks = 1, 1
        while True:  # the counts count themselves
            total = fixed + refcount_table + refcount_blocks
            needed = blocks.count_of(total, COUNTS)
            if needed <= refcount_blocks and blocks.count_of(refcount_blocks, ENTRIES) <= refcount_table:
                return cls(size, allocated, refcount_table, refcount_blocks, l1_table, l2_tables)
            refcount_blocks = max(needed, refcount_blocks)
            refcount_table = blocks.count_of(refcount_blocks, ENTRIES)

    @property
    def l1_start(self) -> int:
        return 1 + self.refcount_table + self.refcount_blocks

    @property
    def l2_start(self) -> int:
        return self.l1_start + self.l1_table

    @property
    def data_start(self) -> int:
        return self.l2_start + self.l2_tables

    @property
    def clusters(self) -> int:
        return self.data_start + len(self.allocated)

    def offset(self, position: int) -> int:
        """Where in the file the byte at ``position`` of the disk lies; it must be allocated."""
        cluster, within = divmod(position, CLUSTER)
        before = self.allocated.rank(cluster) - 1
        return (self.data_start + before) * CLUSTER + within

    def metadata(self) -> Iterator[tuple[int, bytes]]:
        """Offset and content of all that is not data, a few clusters at a time."""
        yield 0, self._header()
        yield CLUSTER, _table(range(1 + self.refcount_table, self.l1_start))
        yield from self._counts()
        yield from self._mapping()

    def _header(self) -> bytes:
        size = blocks.count_of(self.size, SECTOR) * SECTOR  # QEMU counts in sectors and would cut the rest off
        l1_size = blocks.count_of(self.size, CLUSTER * ENTRIES)
        l1_offset = self.l1_start * CLUSTER
        start = _HEADER.pack(
            *(_MAGIC, _VERSION, 0, 0, CLUSTER_BITS, size, 0, l1_size, l1_offset),
            *(CLUSTER, self.refcount_table, 0, 0, 0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH),
        )
        return start + bytes(8)  # no extensions

    def _counts(self) -> Iterator[tuple[int, bytes]]:
        first = 1 + self.refcount_table
        for index in range(self.refcount_blocks):
            count = min(COUNTS, self.clusters - index * COUNTS)
            yield (first + index) * CLUSTER, b"\x00\x01" * max(0, count)

    def _mapping(self) -> Iterator[tuple[int, bytes]]:
        """Each L2 table, and for each the entry of the L1 table."""
        data = self.data_start
        for table, index in enumerate(_tables(self.allocated), self.l2_start):
            yield self.l1_start * CLUSTER + 8 * index, _table(range(table, table + 1), COPIED)
            entries = bytearray(CLUSTER)
            covered = Blocks()
            covered.add_range(index * ENTRIES, (index + 1) * ENTRIES)
            for first, count in blocks.runs(self.allocated & covered):
                start = 8 * (first % ENTRIES)
                entries[start : start + 8 * count] = _table(range(data, data + count), COPIED)
                data += count
            yield table * CLUSTER, bytes(entries)


def _tables(allocated: Blocks) -> Iterator[int]:
    """Index of each L2 table that is needed."""
    last = allocated.max() if allocated else -1
    position = 0
    while position <= last:
        index = allocated.next_set_bit(position) // ENTRIES
        yield index
        position = (index + 1) * ENTRIES


def _table(clusters: range, flag: int = 0) -> bytes:
    """Entries for neighbouring clusters."""
    entries = array("Q", range(clusters.start * CLUSTER | flag, clusters.stop * CLUSTER | flag, CLUSTER))
    if sys.byteorder == "little":
        entries.byteswap()
    return entries.tobytes()


def layout_of(size: int, allocated: Blocks, block_size: int) -> Layout:
    """``allocated`` are blocks of ``block_size`` bytes."""
    return Layout.of(size, blocks.of_extents(blocks.to_extents(allocated, block_size, size), CLUSTER))


class Qcow2File:
    """A :class:`target.Target`: a new file, in which zeroes are not allocated."""

    def __init__(self, place: Path, size: int, allocated: Blocks, block_size: int, purpose: str = "") -> None:
        """``allocated``: the blocks of ``block_size`` bytes that will be written. ``purpose``: see ``PartFile``."""
        self.place = place
        self.size = size
        self._layout = layout_of(size, allocated, block_size)
        self._part = PartFile(place, self._layout.clusters * CLUSTER, purpose)
        self.notes = self._part.notes
        self.before = Before(self._part.descriptor, self._layout.offset) if self._part.resumed else None

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        self._part.write(self._layout.offset(start), pieces)

    def zero(self, extent: Extent) -> None:
        """What is not allocated reads as zeroes, and the rest of a cluster is a hole."""

    def finish(self) -> None:
        for offset, content in self._layout.metadata():
            self._part.write(offset, [content])
        self._part.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._part.__exit__(*details)
