"""A part of an index: a hash table over columns, which lie in memory or in a mapped file.

Open addressing, 52 to 64 bytes a chunk, 15 a frame::

    slots    [ 0 | 7 | 0 | 3 | ... ]     1 + number of a chunk, found by the first bytes of its id
    chunks   id, length, frame (within its pack)
    frames   first chunk (within its pack), offset, sealed length, flags
    packs    id, class, size, first chunk, first frame, origins

The chunks of a pack have neighbouring numbers in the order in which they lie in it. Parts that follow one another are
joined by writing their columns one after the other; only slots and the firsts of packs are new.
"""

from __future__ import annotations

import bisect
import itertools
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from headstart.blocks import Blocks
from headstart.repository import layout
from headstart.repository.packtable import Moved, PackEntries

Bytes: TypeAlias = "bytearray | memoryview"
Numbers: TypeAlias = "array[int] | memoryview"


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


@dataclass(slots=True)
class Columns:
    """What a part consists of. ``moved``: by number of a pack."""

    slots: Numbers
    ids: Bytes
    lengths: Numbers
    frames: Numbers
    starts: Numbers
    offsets: Numbers
    sealed_lengths: Numbers
    flags: Bytes
    pack_ids: Bytes
    classes: Bytes
    sizes: Numbers
    firsts: Numbers
    first_frames: Numbers
    moved: dict[int, Moved]


class Base(NamedTuple):
    """How many chunks, frames and packs stand in the parts before."""

    chunks: int = 0
    frames: int = 0
    packs: int = 0


class Part:
    """Reading. Positions, places and numbers of packs go on from those of the parts before."""

    def __init__(self, columns: Columns, base: Base) -> None:
        self.columns = columns
        self.base = base

    def __len__(self) -> int:
        return len(self.columns.lengths)

    @property
    def pack_count(self) -> int:
        return len(self.columns.firsts)

    @property
    def end(self) -> Base:
        """The base of the part that follows."""
        base = self.base
        frames = len(self.columns.offsets)
        return Base(base.chunks + len(self), base.frames + frames, base.packs + self.pack_count)

    def find(self, chunk_id: bytes, hidden: Blocks | set[int] | tuple[()] = ()) -> int:
        """The first position of the chunk that is not ``hidden``; -1 where there is none. ``IndexError`` where the part
        is damaged, and that is seen."""
        columns = self.columns
        slots, ids, first = columns.slots, columns.ids, self.base.chunks - 1
        mask, count = len(slots) - 1, len(columns.lengths)
        slot = int.from_bytes(chunk_id[:8], sys.byteorder) & mask
        while entry := slots[slot]:
            end = entry * layout.CHUNK_ID_LENGTH
            known: object = ids[end - layout.CHUNK_ID_LENGTH : end]
            if known == chunk_id and (not hidden or first + entry not in hidden):
                return first + entry
            if entry > count:
                raise IndexError("no such chunk")
            slot = (slot + 1) & mask
        return -1

    def find_all(self, chunk_id: bytes) -> Iterator[int]:
        """Its position in every pack that has it; that of ``find`` comes first."""
        seen: set[int] = set()
        while (position := self.find(chunk_id, seen)) >= 0:
            yield position
            seen.add(position)

    def chunk_id(self, position: int) -> bytes:
        start = (position - self.base.chunks) * layout.CHUNK_ID_LENGTH
        return bytes(self.columns.ids[start : start + layout.CHUNK_ID_LENGTH])

    def pack_id(self, number: int) -> bytes:
        start = (number - self.base.packs) * layout.OBJECT_ID_LENGTH
        return bytes(self.columns.pack_ids[start : start + layout.OBJECT_ID_LENGTH])

    def pack_numbers(self) -> Iterator[tuple[bytes, int]]:
        """Every pack, and its number."""
        ids = bytes(self.columns.pack_ids)
        for number, start in enumerate(range(0, len(ids), layout.OBJECT_ID_LENGTH), self.base.packs):
            yield ids[start : start + layout.OBJECT_ID_LENGTH], number

    def pack_of(self, position: int) -> bytes:
        """The pack that a position belongs to."""
        own = bisect.bisect_right(self.columns.firsts, position - self.base.chunks) - 1
        return self.pack_id(self.base.packs + own)

    def size(self, number: int) -> int:
        """Bytes of a pack."""
        return int(self.columns.sizes[number - self.base.packs])

    def span(self, number: int) -> range:
        """Positions of a pack's chunks."""
        own = self._span(number - self.base.packs)
        return range(self.base.chunks + own.start, self.base.chunks + own.stop)

    def entries(self, number: int) -> PackEntries:
        own = number - self.base.packs
        columns, chunks, frames = self.columns, self._span(own), self._span_of_frames(own)
        starts = [*columns.starts[frames.start : frames.stop], len(chunks)]
        width = layout.CHUNK_ID_LENGTH
        return PackEntries(
            self.pack_id(number),
            layout.ChunkClass(columns.classes[own]),
            bytes(columns.ids[chunks.start * width : chunks.stop * width]),
            array("I", columns.lengths[chunks.start : chunks.stop].tobytes()),
            bytes(after - before for before, after in itertools.pairwise(starts)),
            array("I", columns.sealed_lengths[frames.start : frames.stop].tobytes()),
            bytes(columns.flags[frames.start : frames.stop]),
            columns.moved.get(own),
        )

    def locations(self, positions: Iterable[int]) -> Iterator[Location]:
        """Cheapest where neighbours of one frame come one after the other: they share the frame."""
        columns, base = self.columns, self.base
        chunks, number = range(0), -1
        place, frame, first = -1, None, 0
        for position in positions:
            own = position - base.chunks
            if own not in chunks:
                number = bisect.bisect_right(columns.firsts, own) - 1
                chunks = self._span(number)
            wanted = columns.first_frames[number] + columns.frames[own]
            if frame is None or place != wanted:
                place, frame = wanted, self._frame(number, wanted)
                first = chunks.start + columns.starts[place]
            start = sum(columns.lengths[first:own]) if own > first else 0
            yield Location(position, frame, start, columns.lengths[own])

    def _frame(self, number: int, place: int) -> Frame:
        columns = self.columns
        chunks, frames = self._span(number), self._span_of_frames(number)
        if place not in frames:
            raise IndexError("a frame of another pack")
        pack_id = self.pack_id(self.base.packs + number)
        origin, sealed_as = pack_id, place - frames.start
        moved = columns.moved.get(number)
        if moved is not None:
            origin, sealed_as = moved.packs[moved.places[sealed_as]], moved.numbers[sealed_as]
        start = chunks.start + columns.starts[place]
        end = chunks.start + columns.starts[place + 1] if place + 1 < frames.stop else chunks.stop
        return Frame(
            self.base.frames + place,
            pack_id,
            layout.ChunkClass(columns.classes[number]),
            origin,
            sealed_as,
            columns.offsets[place],
            columns.sealed_lengths[place],
            sum(columns.lengths[start:end]),
            columns.flags[place],
        )

    def _span(self, own: int) -> range:
        firsts = self.columns.firsts
        return range(firsts[own], len(self) if own + 1 == len(firsts) else firsts[own + 1])

    def _span_of_frames(self, own: int) -> range:
        firsts = self.columns.first_frames
        return range(firsts[own], len(self.columns.offsets) if own + 1 == len(firsts) else firsts[own + 1])


def slots_for(chunks: int) -> int:
    """How many slots: at most half of them are taken."""
    return max(1024, 2 << chunks.bit_length())


def new_slots(chunks: int) -> array[int]:
    return array("I", [0]) * slots_for(chunks)


def enter(slots: Numbers, first: int, ids: Iterable[Bytes | bytes]) -> None:
    """Give the chunks from number ``first`` on, whose ids these are one after the other, a slot each. Of equal ids the
    first is found."""
    mask = len(slots) - 1
    entry = first
    for piece in ids:
        # The first eight bytes of the ids as numbers: uniform, since ids are keyed hashes.
        for head in memoryview(piece).cast("Q")[:: layout.CHUNK_ID_LENGTH // 8]:
            entry += 1
            slot = head & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = entry
