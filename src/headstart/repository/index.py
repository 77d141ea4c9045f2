"""Where every chunk lies: an index of the whole repository in memory, loaded from ``indexes/``.

One open-addressing hash table over columns, 50 to 60 bytes a chunk::

    slots    [ 0 | 7 | 0 | 3 | ... ]        position + 1 of a chunk, found by the first bytes of its id
    columns  id, offset, sealed length, raw length and flag, by position

The chunks of a pack have neighbouring positions in the order in which they lie in it.
"""

from __future__ import annotations

import bisect
import os
import struct
import sys
import threading
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from headstart import errors
from headstart.repository import layout, objects, pack, seal
from headstart.repository.keys import Secrets
from headstart.repository.pack import PackEntries
from headstart.store.contract import Missing, Store

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

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, entries: PackEntries) -> None:
        first = len(self)
        self._packs.append((entries.pack_id, entries.chunk_class))
        self._firsts.append(first)
        self._ids += entries.ids
        self._offsets.extend(_offsets(entries.sealed_lengths))
        self._sealed_lengths.extend(entries.sealed_lengths)
        self._raw_lengths.extend(
            length | (_COMPRESSED_BIT if flags & layout.COMPRESSED else 0)
            for length, flags in zip(entries.raw_lengths, entries.flags, strict=True)
        )
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
        """Give every position from ``first`` on a slot. Of equal ids the first entered is found."""
        slots, mask = self._slots, len(self._slots) - 1
        for start in range(first, len(self), _PIECE):
            for position, head in enumerate(self._heads(start, min(start + _PIECE, len(self))), start + 1):
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


class Index:
    """The chunks known to be durable in the store. Loads itself when first asked. Any thread may use it."""

    def __init__(self, secrets: Secrets, store: Store) -> None:
        self._secrets = secrets
        self._store = store
        self._lock = threading.RLock()
        self._table = Table()
        self._packs: set[bytes] = set()
        self._broken: set[bytes] = set()  # packs whose own index cannot be read
        self._objects: set[str] = set()
        self._unwritten: list[PackEntries] = []
        self._loaded = False
        #: Objects that could not be read. What they listed was taken from the packs themselves.
        self.damaged: list[errors.Damaged] = []

    def __contains__(self, chunk_id: bytes) -> bool:
        with self._lock:
            self._load_once()
            return self._table.position(chunk_id) >= 0

    def __len__(self) -> int:
        with self._lock:
            self._load_once()
            return len(self._table)

    def find(self, chunk_id: bytes) -> Location | None:
        with self._lock:
            self._load_once()
            position = self._table.position(chunk_id)
            return None if position < 0 else self._table.location(position)

    def others(self, chunk_id: bytes, location: Location) -> list[Location]:
        """Where else a chunk lies: two writers that knew nothing of each other put it, or one pack was lost."""
        with self._lock:
            found = self._table.positions(chunk_id)
            return [self._table.location(each) for each in found if each != location.position]

    def chunk_ids(self, positions: Iterable[int]) -> list[bytes]:
        """The chunks at these positions, which stay what they are as long as this index lives."""
        with self._lock:
            return list(map(self._table.chunk_id, positions))

    def missing(self, chunk_ids: Iterable[bytes]) -> list[bytes]:
        """Those of ``chunk_ids`` that are not known to be durable, each once."""
        with self._lock:
            self._load_once()
            position = self._table.position
            return [chunk_id for chunk_id in dict.fromkeys(chunk_ids) if position(chunk_id) < 0]

    def locate(self, chunk_ids: Iterable[bytes]) -> dict[bytes, Location | errors.Damaged]:
        """Where each chunk lies, or the error that says that it is nowhere.

        Unlike ``find`` it looks, for what is not known, at what other writers added, then into packs that no index
        lists.
        """
        found = {chunk_id: self.find(chunk_id) for chunk_id in chunk_ids}
        for look in (self.refresh, self.adopt_all):
            unknown = [chunk_id for chunk_id, location in found.items() if location is None]
            if unknown:
                look()
                found |= {chunk_id: self.find(chunk_id) for chunk_id in unknown}
        return {chunk_id: location or _nowhere(chunk_id) for chunk_id, location in found.items()}

    def refresh(self) -> None:
        """Load index objects that were added since the last look."""
        with self._lock:
            self._loaded = True
            for name, _ in sorted(self._store.list(layout.INDEXES)):
                if name not in self._objects and layout.is_object_id(name.removeprefix(layout.INDEXES)):
                    self._objects.add(name)
                    self._load(name)

    def adopt(self, pack_id: bytes) -> None:
        """Take up a durable pack that no index object lists, from its own index. ``Damaged`` if it is not whole.

        The next index object that is written lists it.
        """
        with self._lock:
            self._load_once()
        if pack_id not in self._packs:
            name = pack.pack_key(pack_id)
            self._adopt(pack_id, dict(self._store.list(name)).get(name, 0))

    def adopt_all(self) -> None:
        """Adopt every pack in the store that no index lists; those that are not whole are named in ``damaged``."""
        for name, size in sorted(self._store.list(layout.PACKS)):
            pack_id = pack.id_of(name)
            if pack_id is not None and pack_id not in self._packs and pack_id not in self._broken:
                try:
                    self._adopt(pack_id, size)
                except errors.Damaged as error:
                    self._broken.add(pack_id)
                    self._note(error)

    def _adopt(self, pack_id: bytes, size: int) -> None:
        self.add(pack.read_entries(self._secrets, self._store, pack_id, size))

    def add(self, entries: PackEntries) -> None:
        """A pack that became durable, and is to be listed in the next index object."""
        with self._lock:
            self._load_once()
            if self._enter(entries):
                self._unwritten.append(entries)

    @property
    def unwritten_chunks(self) -> int:
        """Chunks of packs that no index object lists yet."""
        with self._lock:
            return sum(map(len, self._unwritten))

    def drop_lost(self) -> set[bytes]:
        """Forget packs that the store does not have any longer, or not whole: their chunks are missing from now on.

        Returns their ids. Costs one listing.
        """
        with self._lock:
            self._load_once()
            known = {pack_id: size for pack_id, size in self._table.sizes() if pack_id in self._packs}
        for name, size in self._store.list(layout.PACKS):
            pack_id = pack.id_of(name)
            if pack_id is not None and known.get(pack_id) == size:
                del known[pack_id]
        if known:
            self._require_store()
        with self._lock:
            self._table.drop(known)
            self._packs -= known.keys()
            self._unwritten = [entries for entries in self._unwritten if entries.pack_id not in known]
        return set(known)

    def _require_store(self) -> None:
        """A place that is not mounted has lost nothing."""
        try:
            self._store.read(layout.CONFIG_KEY)
        except Missing:
            raise errors.StoreFailed(f"{self._store!r} holds no repository now: check that it is mounted.") from None

    def write(self) -> int:
        """Write an index object for the packs that none lists yet. Returns its bytes; 0 when there is nothing."""
        with self._lock:
            packs, self._unwritten = self._unwritten, []
        if not packs:
            return 0
        name = layout.INDEXES + os.urandom(layout.OBJECT_ID_LENGTH).hex()
        data = seal.seal_object(self._secrets, layout.Kind.INDEX, name, encode(packs))
        try:
            objects.put(self._store, name, data)
        except errors.HeadstartError:
            with self._lock:
                self._unwritten = packs + self._unwritten
            raise
        with self._lock:
            self._objects.add(name)
        return len(data)

    def _load_once(self) -> None:
        if not self._loaded:
            self.refresh()

    def _load(self, name: str) -> None:
        """A damaged index object costs reading the packs' own, nothing else."""
        try:
            data = self._store.read(name)
            listed = decode(name, seal.open_object(self._secrets, layout.Kind.INDEX, name, data))
        except Missing:
            return  # collected between listing and reading
        except errors.Damaged as error:
            self._note(error)
            self.adopt_all()
            return
        for entries in listed:
            self._enter(entries)

    def _enter(self, entries: PackEntries) -> bool:
        if entries.pack_id in self._packs:
            return False
        self._packs.add(entries.pack_id)
        self._table.add(entries)
        return True

    def _note(self, error: errors.Damaged) -> None:
        with self._lock:
            if str(error) not in map(str, self.damaged):
                self.damaged.append(error)


def _nowhere(chunk_id: bytes) -> errors.Damaged:
    name = chunk_id.hex()
    return errors.Damaged(f"Chunk {name} is missing: no pack of the repository holds it.", object=f"chunk {name}")


def encode(packs: Iterable[PackEntries]) -> bytes:
    """The payload of an index object."""
    return b"".join(
        layout.INDEX_HEAD.pack(entries.pack_id, entries.chunk_class, len(entries)) + entries.encode()
        for entries in packs
    )


def decode(name: str, payload: bytes) -> list[PackEntries]:
    packs: list[PackEntries] = []
    start = 0
    try:
        while start < len(payload):
            pack_id, chunk_class, count = layout.INDEX_HEAD.unpack_from(payload, start)
            start += layout.INDEX_HEAD.size
            end = start + count * pack.ENTRY_LENGTH
            packs.append(PackEntries.decode(pack_id, chunk_class, count, payload[start:end]))
            start = end
    except (ValueError, struct.error):
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None
    return packs
