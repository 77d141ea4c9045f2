"""Packs: many chunks of one class in one object, which ends with its own index.

::

    header | head | sealed chunk 0 | sealed chunk 1 | ... | sealed index | foot
"""

from __future__ import annotations

import mmap
import os
import sys
from array import array
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag

from headstart import errors
from headstart.repository import layout, seal
from headstart.repository.keys import Secrets
from headstart.store.contract import Data, Store


@dataclass(frozen=True, slots=True)
class PackEntries:
    """The chunks of one pack, in the order in which they lie in it, as columns."""

    pack_id: bytes
    chunk_class: layout.ChunkClass
    ids: bytes
    sealed_lengths: array[int]
    raw_lengths: array[int]
    flags: bytes

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def name(self) -> str:
        return pack_key(self.pack_id)

    @property
    def chunk_bytes(self) -> int:
        return sum(self.sealed_lengths)

    def encode(self) -> bytes:
        return self.ids + _little(self.sealed_lengths) + _little(self.raw_lengths) + self.flags

    @classmethod
    def decode(cls, pack_id: bytes, chunk_class: int, count: int, data: bytes) -> PackEntries:
        """``data`` was authenticated; ``ValueError`` when it is no such table all the same."""
        ids, sealed, raw, flags = _columns(data, (layout.CHUNK_ID_LENGTH, 4, 4, 1), count)
        sealed_lengths, raw_lengths = _numbers(sealed), _numbers(raw)
        if layout.PACK_START + sum(sealed_lengths) >= 1 << 32 or max(raw_lengths, default=0) > layout.MAX_CHUNK_LENGTH:
            raise ValueError("longer than a pack or a chunk can be")
        return cls(pack_id, layout.ChunkClass(chunk_class), ids, sealed_lengths, raw_lengths, flags)


#: Bytes that ``PackEntries.encode`` needs for one chunk.
ENTRY_LENGTH = layout.CHUNK_ID_LENGTH + 4 + 4 + 1


def pack_key(pack_id: bytes) -> str:
    return layout.PACKS + pack_id.hex()


def size_of(end: int, count: int) -> int:
    """Bytes of a pack whose ``count`` chunks end at ``end``."""
    return end + count * _OWN_ENTRY_LENGTH + layout.TAG_LENGTH + layout.PACK_FOOT.size


def id_of(key: str) -> bytes | None:
    """The pack whose key this is; None for a foreign object."""
    name = key.removeprefix(layout.PACKS)
    return bytes.fromhex(name) if layout.is_object_id(name) else None


def _columns(data: bytes, widths: tuple[int, ...], count: int) -> list[bytes]:
    if len(data) != count * sum(widths):
        raise ValueError("wrong length of a table")
    columns, start = [], 0
    for width in widths:
        columns.append(data[start : start + width * count])
        start += width * count
    return columns


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _numbers(data: bytes) -> array[int]:
    numbers = array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one chunk in an open pack."""

    pack: OpenPack
    number: int
    chunk_id: bytes
    offset: int
    length: int

    def fill(self, data: Data) -> None:
        """Seal ``data`` into its place. Slots of one pack may be filled from several threads at once."""
        with self.pack.view(self.offset, self.length) as target:
            self.pack.sealer.seal_into(self.number, self.chunk_id, data, target)
            self.pack.digests[self.number] = blake3(target).digest()


class OpenPack:
    """A pack that is being filled, in a buffer of ``layout.PACK_SIZE`` bytes that begins on a page of memory, so that a
    store can write it past the page cache.

    ``reserve``, ``view`` of the finished pack and ``finish`` are for one thread at a time; ``Slot.fill`` for any.
    """

    def __init__(self, secrets: Secrets, chunk_class: layout.ChunkClass, buffer: mmap.mmap) -> None:
        self.pack_id = os.urandom(layout.OBJECT_ID_LENGTH)
        self.chunk_class = chunk_class
        self.sealer = seal.ChunkSealer(secrets, chunk_class, self.pack_id)
        self.digests: list[bytes] = []
        self.unfilled = 0
        self.closed = False
        self.buffer = buffer
        self._secrets = secrets
        self._ids: list[bytes] = []
        self._sealed_lengths = array("I")
        self._raw_lengths = array("I")
        self._flags = bytearray()
        head = _head(self.pack_id, chunk_class)
        buffer[: len(head)] = head
        self._end = len(head)

    @property
    def ids(self) -> list[bytes]:
        return self._ids

    def fits(self, length: int) -> bool:
        """Whether a chunk of ``length`` bytes, not yet sealed, finds room, with its entry and the foot."""
        if len(self._ids) >= layout.PACK_CHUNKS:
            return False
        end = self._end + length + layout.TAG_LENGTH
        return size_of(end, len(self._ids) + 1) <= len(self.buffer)

    def reserve(self, chunk_id: bytes, length: int, raw_length: int, flags: int) -> Slot:
        slot = Slot(self, len(self._ids), chunk_id, self._end, length + layout.TAG_LENGTH)
        self._ids.append(chunk_id)
        self._sealed_lengths.append(slot.length)
        self._raw_lengths.append(raw_length)
        self._flags.append(flags)
        self.digests.append(b"")
        self._end += slot.length
        self.unfilled += 1
        return slot

    def view(self, offset: int, length: int) -> memoryview:
        return memoryview(self.buffer)[offset : offset + length]

    def finish(self) -> tuple[PackEntries, memoryview]:
        """Every slot is filled: add index and foot. The view is of the pack's own buffer."""
        entries = PackEntries(
            self.pack_id,
            self.chunk_class,
            b"".join(self._ids),
            self._sealed_lengths,
            self._raw_lengths,
            bytes(self._flags),
        )
        context = _index_context(entries.chunk_class, len(entries), self._end)
        sealed = seal.seal_pack_index(self._secrets, self.pack_id, context, entries.encode() + b"".join(self.digests))
        tail = sealed + _foot(self._end, len(sealed), len(entries))
        end = self._end + len(tail)
        self.buffer[self._end : end] = tail
        return entries, self.view(0, end)


_OWN_ENTRY_LENGTH = ENTRY_LENGTH + layout.DIGEST_LENGTH


def _index_context(chunk_class: int, count: int, offset: int) -> bytes:
    return bytes([chunk_class]) + count.to_bytes(4, "little") + offset.to_bytes(4, "little")


def _head(pack_id: bytes, chunk_class: int) -> bytes:
    return layout.header(layout.Kind.PACK) + layout.PACK_HEAD.pack(pack_id, chunk_class)


def _foot(offset: int, length: int, count: int) -> bytes:
    return layout.PACK_FOOT.pack(offset, length, count, layout.header(layout.Kind.FOOTER))


def read_entries(secrets: Secrets, store: Store, pack_id: bytes, size: int) -> PackEntries:
    """From the own index of a pack of ``size`` bytes. ``Damaged`` when it is not whole, ``Missing`` when not there."""
    name = pack_key(pack_id)
    try:
        head = store.read_range(name, 0, layout.PACK_START)
        if size < layout.PACK_START + layout.PACK_FOOT.size:
            raise ValueError("too short")
        foot = store.read_range(name, size - layout.PACK_FOOT.size, layout.PACK_FOOT.size)
        chunk_class = _checked_head(head, pack_id)
        offset, length, count = _checked_foot(foot, size)
        sealed = store.read_range(name, offset, length)
        payload = seal.open_pack_index(secrets, pack_id, _index_context(chunk_class, count, offset), sealed)
        entries = PackEntries.decode(pack_id, chunk_class, count, payload[: count * ENTRY_LENGTH])
        if entries.chunk_bytes != offset - layout.PACK_START:
            raise ValueError("lengths")
    except (ValueError, InvalidTag):
        raise errors.Damaged(f"{name} is damaged: its own index cannot be read.", object=name) from None
    return entries


def _checked_head(head: bytes, pack_id: bytes) -> int:
    if len(head) != layout.PACK_START:
        raise ValueError("too short")
    _, chunk_class = layout.PACK_HEAD.unpack(head[layout.HEADER_LENGTH :])
    if head != _head(pack_id, chunk_class):
        raise ValueError("not the head of this pack")
    return int(chunk_class)


def _checked_foot(foot: bytes, size: int) -> tuple[int, int, int]:
    if len(foot) != layout.PACK_FOOT.size:
        raise ValueError("too short")
    offset, length, count, _ = layout.PACK_FOOT.unpack(foot)
    if foot != _foot(offset, length, count) or offset + length + layout.PACK_FOOT.size != size:
        raise ValueError("not a foot")
    return offset, length, count
