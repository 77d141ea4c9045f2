"""The part of an index that is in memory and grows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from headstart import units
from headstart.repository import layout, table
from headstart.repository.packtable import PackEntries
from headstart.repository.table import Base, Columns, Part

_NOTHING = Base()
#: Bytes of ids that are taken at a time, which bounds a copy.
_PIECE = units.MIB


class MemTable(Part):
    """Not safe against changes from several threads."""

    def __init__(self, base: Base = _NOTHING) -> None:
        self._ids, self._flags, self._pack_ids, self._classes = bytearray(), bytearray(), bytearray(), bytearray()
        self._lengths, self._frames = array("I"), array("I")
        self._starts, self._offsets, self._sealed_lengths = array("I"), array("I"), array("I")
        self._sizes, self._firsts, self._first_frames = array("Q"), array("I"), array("I")
        columns = Columns(
            slots=table.new_slots(0),
            ids=self._ids,
            lengths=self._lengths,
            frames=self._frames,
            starts=self._starts,
            offsets=self._offsets,
            sealed_lengths=self._sealed_lengths,
            flags=self._flags,
            pack_ids=self._pack_ids,
            classes=self._classes,
            sizes=self._sizes,
            firsts=self._firsts,
            first_frames=self._first_frames,
            moved={},
        )
        super().__init__(columns, base)

    def add(self, entries: PackEntries) -> int:
        """The number of the pack."""
        number, first = self.pack_count, len(self)
        if entries.moved:
            self.columns.moved[number] = entries.moved
        self._pack_ids += entries.pack_id
        self._classes.append(entries.chunk_class)
        self._sizes.append(entries.size)
        self._firsts.append(first)
        self._first_frames.append(len(self._offsets))
        self._ids += entries.ids
        self._lengths.extend(entries.lengths)
        self._offsets.extend(_offsets(entries.sealed_lengths))
        self._sealed_lengths.extend(entries.sealed_lengths)
        self._flags += entries.flags
        start = 0
        for frame, count in enumerate(entries.counts):
            self._starts.append(start)
            self._frames.extend([frame] * count)
            start += count
        if 2 * len(self) > len(self.columns.slots):
            self.columns.slots = table.new_slots(len(self))
            table.enter(self.columns.slots, 0, self._pieces())
        else:
            table.enter(self.columns.slots, first, [entries.ids])
        return self.base.packs + number

    def _pieces(self) -> Iterator[bytearray]:
        return (self._ids[start : start + _PIECE] for start in range(0, len(self._ids), _PIECE))


def _offsets(sealed_lengths: array[int]) -> Iterable[int]:
    offset = layout.PACK_START
    for length in sealed_lengths:
        yield offset
        offset += length
