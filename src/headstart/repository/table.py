"""The hash table of an index: where every chunk lies.

Open addressing over columns, 50 to 60 bytes a chunk::

    slots    [ 0 | 7 | 0 | 3 | ... ]        position + 1 of a chunk, found by the first bytes of its id
    columns  id, offset, sealed length, raw length and flag, by position

The chunks of a pack have neighbouring positions in the order in which they lie in it.
"""

from __future__ import annotations

import bisect
import os
import sys
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from headstart.repository import layout, loss, pack
from headstart.repository.pack import PackEntries

_COMPRESSED_BIT = 1 << 31


class Location(NamedTuple):
    """Where one chunk lies. ``position`` orders all chunks by pack and place in the pack."""

    position: int
    pack_id: bytes
    chunk_class: layout.ChunkClass
    number: int
    offset: int
    sealed_length: int
    raw_length: int
    compressed: bool


class Table:
    """The hash table. Not safe against changes from several threads."""

    def __init__(self) -> None:
        self._ids = bytearray()
        self._offsets = array("I")
        self._sealed_lengths = array("I")
        self._raw_lengths = array("I")
        self._slots = array("I", bytes(4 * 1024))
        self._packs: list[tuple[bytes, layout.ChunkClass]] = []
        self._firsts: list[int] = []  # position of each pack's first chunk
        self._owners: dict[bytes, int] = {}  # by pack, its place in both
        self._doubted: set[int] = set()
        self._doubtful: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, entries: PackEntries, doubted: loss.Copies = loss.NONE) -> None:
        """``doubted``: those of its copies that are known to be bad."""
        first = len(self)
        self._owners[entries.pack_id] = len(self._packs)
        self._packs.append((entries.pack_id, entries.chunk_class))
        self._firsts.append(first)
        self._ids += entries.ids
        self._offsets.extend(_offsets(entries.sealed_lengths))
        self._sealed_lengths.extend(entries.sealed_lengths)
        self._raw_lengths.extend(
            length | (_COMPRESSED_BIT if flags & layout.COMPRESSED else 0)
            for length, flags in zip(entries.raw_lengths, entries.flags, strict=True)
        )
        self._doubt(range(first, len(self)), doubted)
        if 2 * len(self) > len(self._slots):
            self._grow()
        else:
            self._enter(first)

    def position(self, chunk_id: bytes) -> int:
        """-1 when it is not there."""
        return next(self.positions(chunk_id), -1)

    def positions(self, chunk_id: bytes) -> Iterator[int]:
        """Of the chunk in every pack that has it; the one of ``position`` comes first."""
        mask = len(self._slots) - 1
        slot = int.from_bytes(chunk_id[:8], sys.byteorder) & mask
        while entry := self._slots[slot]:
            start = (entry - 1) * layout.CHUNK_ID_LENGTH
            if self._ids[start : start + layout.CHUNK_ID_LENGTH] == chunk_id:
                yield entry - 1
            slot = (slot + 1) & mask

    def doubt(self, copies: Mapping[bytes, loss.Copies]) -> None:
        """From now on these copies, by pack, are not found by ``position``. Costs a pass over everything."""
        known = [pack_id for pack_id in copies if pack_id in self._owners]
        for pack_id in known:
            self._doubt(self._positions(pack_id), copies[pack_id])
        if known:
            self._slots = array("I", bytes(4 * len(self._slots)))
            self._enter(0)

    def _doubt(self, positions: range, copies: loss.Copies) -> None:
        if copies is not None and not copies:
            return
        for position in positions:
            chunk_id = self.chunk_id(position)
            if copies is None or chunk_id in copies:
                self._doubted.add(position)
                self._doubtful[chunk_id] = position

    def _positions(self, pack_id: bytes) -> range:
        owner = self._owners[pack_id]
        return range(self._firsts[owner], self._firsts[owner + 1] if owner + 1 < len(self._firsts) else len(self))

    def entries(self, pack_id: bytes) -> PackEntries:
        positions = self._positions(pack_id)
        first, end = positions.start, positions.stop
        lengths = self._raw_lengths[first:end]
        return PackEntries(
            *self._packs[self._owners[pack_id]],
            bytes(self._ids[first * layout.CHUNK_ID_LENGTH : end * layout.CHUNK_ID_LENGTH]),
            self._sealed_lengths[first:end],
            array("I", [length & ~_COMPRESSED_BIT for length in lengths]),
            bytes(layout.COMPRESSED if length & _COMPRESSED_BIT else 0 for length in lengths),
        )

    def doubtful_position(self, chunk_id: bytes) -> int:
        """A copy that is known to be bad; -1 when there is none."""
        return self._doubtful.get(chunk_id, -1)

    @property
    def has_doubts(self) -> bool:
        return bool(self._doubted)

    def is_doubted(self, position: int) -> bool:
        return position in self._doubted

    def chunk_id(self, position: int) -> bytes:
        start = position * layout.CHUNK_ID_LENGTH
        return bytes(self._ids[start : start + layout.CHUNK_ID_LENGTH])

    def location(self, position: int) -> Location:
        owner = bisect.bisect_right(self._firsts, position) - 1
        length = self._raw_lengths[position]
        return Location(
            position,
            *self._packs[owner],
            position - self._firsts[owner],
            self._offsets[position],
            self._sealed_lengths[position],
            length & ~_COMPRESSED_BIT,
            bool(length & _COMPRESSED_BIT),
        )

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Packs and their bytes."""
        for number, (pack_id, _) in enumerate(self._packs):
            first, end = self._span(number)
            chunks = self._offsets[end - 1] + self._sealed_lengths[end - 1] if end > first else layout.PACK_START
            yield pack_id, pack.size_of(chunks, end - first)

    def drop(self, pack_ids: Container[bytes]) -> None:
        """The chunks of these packs are not found any longer: they get ids that no content has."""
        for number, (pack_id, _) in enumerate(self._packs):
            if pack_id in pack_ids:
                first, end = (each * layout.CHUNK_ID_LENGTH for each in self._span(number))
                self._ids[first:end] = os.urandom(end - first)

    def _span(self, number: int) -> tuple[int, int]:
        """Positions of a pack's chunks."""
        following = self._firsts[number + 1 : number + 2]
        return self._firsts[number], following[0] if following else len(self)

    def _grow(self) -> None:
        self._slots = array("I", [0]) * (2 << len(self).bit_length())
        self._enter(0)

    def _enter(self, first: int) -> None:
        """Give every position from ``first`` on a slot, unless its copy is bad. Of equal ids the first is found."""
        slots, mask, doubted = self._slots, len(self._slots) - 1, self._doubted
        for start in range(first, len(self), _PIECE):
            for position, head in enumerate(self._heads(start, min(start + _PIECE, len(self))), start + 1):
                if doubted and position - 1 in doubted:
                    continue
                slot = head & mask
                while slots[slot]:
                    slot = (slot + 1) & mask
                slots[slot] = position

    def _heads(self, start: int, end: int) -> Sequence[int]:
        """The first eight bytes of the ids as numbers: uniform, since ids are keyed hashes."""
        piece = self._ids[start * layout.CHUNK_ID_LENGTH : end * layout.CHUNK_ID_LENGTH]
        return memoryview(piece).cast("Q")[:: layout.CHUNK_ID_LENGTH // 8]


#: Positions entered at a time, which bounds a copy.
_PIECE = 1 << 16


def _offsets(sealed_lengths: array[int]) -> Iterable[int]:
    offset = layout.PACK_START
    for length in sealed_lengths:
        yield offset
        offset += length
