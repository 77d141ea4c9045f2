"""What a pack holds, as a table of columns: in the pack's own index, in index objects, and in memory."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from headstart.repository import columns, layout


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the frames of a pack were sealed: by frame, the place of that pack in ``packs``, and the number there."""

    packs: tuple[bytes, ...]
    places: array[int]
    numbers: array[int]

    def encode(self) -> bytes:
        return b"".join(self.packs) + columns.encode(self.places) + columns.encode(self.numbers)

    @classmethod
    def decode(cls, count: int, frames: int, data: bytes) -> Moved:
        """``ValueError`` when ``data`` is no such table of ``count`` packs."""
        ids, places, numbers = columns.cut(data, (layout.OBJECT_ID_LENGTH * count, 2 * frames, 4 * frames))
        length = layout.OBJECT_ID_LENGTH
        packs = tuple(ids[start : start + length] for start in range(0, len(ids), length))
        found = cls(packs, columns.decode(places, "H"), columns.decode(numbers))
        if max(found.places, default=0) >= count:
            raise ValueError("of no pack")
        return found


@dataclass(frozen=True, slots=True)
class PackEntries:
    """What a pack holds, as columns: ids and lengths (bytes) of its chunks in the order in which they lie in it; how
    many of them each frame holds, its length as it is stored, its flags. ``moved`` None: its frames were sealed in it.
    """

    pack_id: bytes
    chunk_class: layout.ChunkClass
    ids: bytes
    lengths: array[int]
    counts: bytes
    sealed_lengths: array[int]
    flags: bytes
    moved: Moved | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def frames_bytes(self) -> int:
        return sum(self.sealed_lengths)

    @property
    def origins(self) -> int:
        """How many packs its frames were sealed in, if not in this one."""
        return len(self.moved.packs) if self.moved else 0

    @property
    def size(self) -> int:
        """Bytes of the whole pack."""
        body = layout.PACK_START + self.frames_bytes + layout.TAG_LENGTH + layout.DIGEST_LENGTH * len(self.counts)
        if not self.moved and any(flag & layout.BOUND for flag in self.flags):
            return body + len(self) * _ENTRY_LENGTH_0 + layout.PACK_FOOT_0.size
        return body + table_length(len(self), len(self.counts), self.origins) + layout.PACK_FOOT.size

    def encode(self) -> bytes:
        lengths, sealed_lengths = columns.encode(self.lengths), columns.encode(self.sealed_lengths)
        table = b"".join([self.ids, lengths, self.counts, sealed_lengths, self.flags])
        return table + (self.moved.encode() if self.moved else b"")

    @classmethod
    def decode(
        cls, pack_id: bytes, chunk_class: int, chunks: int, frames: int, origins: int, data: bytes
    ) -> PackEntries:
        """``data`` was authenticated; ``ValueError`` when it is no such table all the same."""
        widths = (layout.CHUNK_ID_LENGTH * chunks, 4 * chunks, frames, 4 * frames, frames)
        start = sum(widths)
        ids, lengths, counts, sealed, flags = columns.cut(data[:start], widths)
        moved = Moved.decode(origins, frames, data[start:]) if origins else None
        if (moved is None and len(data) != start) or sum(counts) != chunks or 0 in counts:
            raise ValueError("wrong length of a table")
        table = ids, columns.decode(lengths), counts, columns.decode(sealed), flags
        return cls(pack_id, layout.ChunkClass(chunk_class), *table, moved)._checked()

    @classmethod
    def decode_0(cls, pack_id: bytes, chunk_class: int, chunks: int, data: bytes) -> PackEntries:
        """As ``decode``, of format 0."""
        widths = (layout.CHUNK_ID_LENGTH * chunks, 4 * chunks, 4 * chunks, chunks)
        ids, sealed, lengths, flags = columns.cut(data, widths)
        bound = bytes(flag | layout.BOUND for flag in flags)
        table = ids, columns.decode(lengths), bytes([1]) * chunks, columns.decode(sealed), bound
        return cls(pack_id, layout.ChunkClass(chunk_class), *table)._checked()

    def _checked(self) -> PackEntries:
        longest = max(self.lengths, default=0)
        if layout.PACK_START + self.frames_bytes >= 1 << 32 or longest > layout.MAX_CHUNK_LENGTH:
            raise ValueError("longer than a pack or a chunk can be")
        return self


_CHUNK_ENTRY = layout.CHUNK_ID_LENGTH + 4
_FRAME_ENTRY = 1 + 4 + 1
_ENTRY_LENGTH_0 = layout.CHUNK_ID_LENGTH + 4 + 4 + 1


def table_length(chunks: int, frames: int, origins: int) -> int:
    """Bytes of ``PackEntries.encode``."""
    moved = layout.OBJECT_ID_LENGTH * origins + 6 * frames if origins else 0
    return chunks * _CHUNK_ENTRY + frames * _FRAME_ENTRY + moved


def table_length_0(chunks: int) -> int:
    """As ``table_length``, of format 0."""
    return chunks * _ENTRY_LENGTH_0
