"""The hash table of an index: where every chunk lies.

Open addressing over columns, 52 to 64 bytes a chunk, 13 a frame::

    slots    [ 0 | 7 | 0 | 3 | ... ]        position + 1 of a chunk, found by the first bytes of its id
    columns  id, length, frame, by position; offset, sealed length, flags, first position, by frame

The chunks of a pack have neighbouring positions in the order in which they lie in it.
"""

from __future__ import annotations

import bisect
import itertools
import os
import sys
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from headstart.repository import layout, loss
from headstart.repository.pack import Moved, PackEntries


class Frame(NamedTuple):
    """Where one frame lies: ``offset`` and ``sealed_length`` in its pack; ``length`` is that of all its chunks.

    It was sealed under ``number`` in the pack ``origin``, which need not be the one it lies in. ``place`` orders all
    frames by pack and place in the pack.
    """

    place: int
    pack_id: bytes
    chunk_class: layout.ChunkClass
    origin: bytes
    number: int
    offset: int
    sealed_length: int
    length: int
    flags: int


class Location(NamedTuple):
    """Where one chunk lies: ``length`` bytes from ``start`` of what the frame holds. ``position`` orders all chunks by
    pack and place in the pack."""

    position: int
    frame: Frame
    start: int
    length: int

    @property
    def pack_id(self) -> bytes:
        return self.frame.pack_id

    @property
    def stored_length(self) -> float:
        """Bytes of its frame that are the chunk's, by its share of what the frame holds."""
        return self.frame.sealed_length * self.length / self.frame.length


class Table:
    """The hash table. Not safe against changes from several threads."""

    def __init__(self) -> None:
        self._ids = bytearray()
        self._lengths = array("I")
        self._frames = array("I")
        self._offsets = array("I")
        self._sealed_lengths = array("I")
        self._flags = bytearray()
        self._starts = array("I")  # position of each frame's first chunk
        self._slots = array("I", bytes(4 * 1024))
        self._packs: list[tuple[bytes, layout.ChunkClass]] = []
        self._firsts: list[int] = []  # position of each pack's first chunk
        self._first_frames: list[int] = []
        self._sizes: list[int] = []
        self._moved: dict[int, Moved] = {}  # by a pack's place in the lists
        self._owners: dict[bytes, int] = {}  # by pack, its place in the lists
        self._doubted: set[int] = set()
        self._doubtful: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, entries: PackEntries, doubted: loss.Copies = loss.NONE) -> None:
        """``doubted``: those of its copies that are known to be bad."""
        first, frame = len(self), len(self._offsets)
        owner = self._owners[entries.pack_id] = len(self._packs)
        self._packs.append((entries.pack_id, entries.chunk_class))
        self._firsts.append(first)
        self._first_frames.append(frame)
        self._sizes.append(entries.size)
        if entries.moved:
            self._moved[owner] = entries.moved
        self._ids += entries.ids
        self._lengths.extend(entries.lengths)
        self._offsets.extend(_offsets(entries.sealed_lengths))
        self._sealed_lengths.extend(entries.sealed_lengths)
        self._flags += entries.flags
        position = first
        for number, count in enumerate(entries.counts, frame):
            self._starts.append(position)
            self._frames.extend([number] * count)
            position += count
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
            self._doubt(self._span(self._owners[pack_id]), copies[pack_id])
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

    def positions_of(self, pack_id: bytes) -> range:
        """Of the chunks of a pack."""
        return self._span(self._owners[pack_id])

    def pack_of(self, position: int) -> bytes:
        """The pack that a position belongs to."""
        return self._packs[bisect.bisect_right(self._firsts, position) - 1][0]

    def entries(self, pack_id: bytes) -> PackEntries:
        owner = self._owners[pack_id]
        positions, frames = self._span(owner), self._span_of_frames(owner)
        first, end = positions.start, positions.stop
        starts = [*self._starts[frames.start : frames.stop], end]
        return PackEntries(
            *self._packs[owner],
            bytes(self._ids[first * layout.CHUNK_ID_LENGTH : end * layout.CHUNK_ID_LENGTH]),
            self._lengths[first:end],
            bytes(after - before for before, after in itertools.pairwise(starts)),
            self._sealed_lengths[frames.start : frames.stop],
            bytes(self._flags[frames.start : frames.stop]),
            self._moved.get(owner),
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
        return next(self.locations([position]))

    def locations(self, positions: Iterable[int]) -> Iterator[Location]:
        """Cheapest where neighbours of one frame come one after the other: they share the frame."""
        frame: Frame | None = None
        first = -1
        for position in positions:
            place = self._frames[position]
            if frame is None or frame.place != place:
                frame, first = self._frame(place), self._starts[place]
            start = sum(self._lengths[first:position]) if position > first else 0
            yield Location(position, frame, start, self._lengths[position])

    def _frame(self, place: int) -> Frame:
        owner = bisect.bisect_right(self._first_frames, place) - 1
        number = place - self._first_frames[owner]
        pack_id, chunk_class = self._packs[owner]
        origin, moved = pack_id, self._moved.get(owner)
        if moved is not None:
            origin, number = moved.packs[moved.places[number]], moved.numbers[number]
        end = self._starts[place + 1] if place + 1 < len(self._starts) else len(self)
        return Frame(
            place,
            pack_id,
            chunk_class,
            origin,
            number,
            self._offsets[place],
            self._sealed_lengths[place],
            sum(self._lengths[self._starts[place] : end]),
            self._flags[place],
        )

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Packs and their bytes."""
        for (pack_id, _), size in zip(self._packs, self._sizes, strict=True):
            yield pack_id, size

    def drop(self, pack_ids: Container[bytes]) -> None:
        """The chunks of these packs are not found any longer: they get ids that no content has."""
        for owner, (pack_id, _) in enumerate(self._packs):
            if pack_id in pack_ids:
                span = self._span(owner)
                first, end = (each * layout.CHUNK_ID_LENGTH for each in (span.start, span.stop))
                self._ids[first:end] = os.urandom(end - first)

    def _span(self, owner: int) -> range:
        """Positions of a pack's chunks."""
        last = owner + 1 == len(self._firsts)
        return range(self._firsts[owner], len(self) if last else self._firsts[owner + 1])

    def _span_of_frames(self, owner: int) -> range:
        last = owner + 1 == len(self._first_frames)
        return range(self._first_frames[owner], len(self._offsets) if last else self._first_frames[owner + 1])

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
