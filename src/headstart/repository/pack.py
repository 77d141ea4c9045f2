"""Packs: many chunks of one class in one object, which ends with its own index.

::

    header | head | sealed frame 0 | sealed frame 1 | ... | sealed index | foot

A frame is one chunk or several that were stored together, compressed and sealed as one: that makes them smaller, and
costs less for each. Frames may be *moved*, as they are, into a pack that takes the place of others: what sealed them,
the id of their first pack and their number in it, goes along. That needs no secret of content.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from blake3 import blake3
from cryptography.exceptions import InvalidTag

from headstart import errors
from headstart.repository import layout, packtable, seal
from headstart.repository.keys import Secrets
from headstart.repository.packtable import Moved, PackEntries
from headstart.store.contract import Data, Store


class ReadsRanges(Protocol):
    """As ``Store.read_range``."""

    def read_range(self, key: str, offset: int, length: int) -> bytes: ...


def pack_key(pack_id: bytes) -> str:
    return layout.PACKS + pack_id.hex()


def id_of(key: str) -> bytes | None:
    """The pack whose key this is; None for a foreign object."""
    name = key.removeprefix(layout.PACKS)
    return bytes.fromhex(name) if layout.is_object_id(name) else None


def stored(store: Store) -> Iterator[tuple[bytes, int]]:
    """The packs that the store lists, and their bytes."""
    for name, size in store.list(layout.PACKS):
        pack_id = id_of(name)
        if pack_id is not None:
            yield pack_id, size


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one frame in an open pack."""

    pack: OpenPack
    number: int
    offset: int
    length: int

    def fill(self, data: Data) -> None:
        """Seal ``data`` into its place. Slots of one pack may be filled from several threads at once."""
        with self.pack.view(self.offset, self.length) as target:
            self.pack.sealer.seal_into(self.number, data, target)
            self.pack.digests[self.number] = blake3(target).digest()

    def take(self, sealed: Data) -> None:
        """A frame as it was sealed in another pack."""
        with self.pack.view(self.offset, self.length) as target:
            target[:] = sealed
            self.pack.digests[self.number] = blake3(target).digest()


class OpenPack:
    """A pack that is being filled, in a buffer of ``layout.PACK_SIZE`` bytes that begins on a page of memory, so that a
    store can write it past the page cache.

    ``reserve``, ``view`` of the finished pack and ``finish`` are for one thread at a time; ``Slot.fill`` for any.
    """

    def __init__(self, secrets: Secrets, chunk_class: layout.ChunkClass, buffer: mmap.mmap) -> None:
        self.pack_id = os.urandom(layout.OBJECT_ID_LENGTH)
        self.chunk_class = chunk_class
        self.digests: list[bytes] = []
        self.unfilled = 0
        self.closed = False
        self.buffer = buffer
        self._secrets = secrets
        self._ids: list[bytes] = []
        self._lengths = array("I")
        self._counts = bytearray()
        self._sealed_lengths = array("I")
        self._flags = bytearray()
        #: Of moved frames: the packs that they were sealed in, and which, and under which number.
        self._origins: dict[bytes, int] = {}
        self._places, self._numbers = array("H"), array("I")
        head = _head(self.pack_id, chunk_class)
        buffer[: len(head)] = head
        self._end = len(head)

    @functools.cached_property
    def sealer(self) -> seal.FrameSealer:
        """Not for who only moves frames: it takes the secret of content."""
        return seal.FrameSealer(self._secrets, self.chunk_class, self.pack_id)

    @property
    def ids(self) -> list[bytes]:
        return self._ids

    def fits(self, length: int, chunks: int, origin: bytes | None = None) -> bool:
        """Whether a frame of ``length`` bytes as it is stored finds room, with its entries and the foot."""
        if self._ids and len(self._ids) + chunks > layout.PACK_CHUNKS:
            return False
        origins = len(self._origins) + (origin is not None and origin not in self._origins)
        table = packtable.table_length(len(self._ids) + chunks, len(self._counts) + 1, origins)
        tail = table + layout.DIGEST_LENGTH * (len(self._counts) + 1) + layout.TAG_LENGTH + layout.PACK_FOOT.size
        return origins < 1 << 16 and self._end + length + tail <= len(self.buffer)

    def reserve(
        self,
        ids: Sequence[bytes],
        lengths: Sequence[int],
        sealed_length: int,
        flags: int,
        origin: tuple[bytes, int] | None = None,
    ) -> Slot:
        """``origin``: pack id and number under which it was sealed. All frames of a pack have one, or none has."""
        slot = Slot(self, len(self._counts), self._end, sealed_length)
        if origin is not None:
            self._places.append(self._origins.setdefault(origin[0], len(self._origins)))
            self._numbers.append(origin[1])
        self._ids.extend(ids)
        self._lengths.extend(lengths)
        self._counts.append(len(ids))
        self._sealed_lengths.append(sealed_length)
        self._flags.append(flags)
        self.digests.append(b"")
        self._end += sealed_length
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
            self._lengths,
            bytes(self._counts),
            self._sealed_lengths,
            bytes(self._flags),
            Moved(tuple(self._origins), self._places, self._numbers) if self._origins else None,
        )
        context = _index_context(entries.chunk_class, _Foot.of(entries, self._end, 0))
        sealed = seal.seal_pack_index(self._secrets, self.pack_id, context, entries.encode() + b"".join(self.digests))
        tail = sealed + _Foot.of(entries, self._end, len(sealed)).encode()
        end = self._end + len(tail)
        self.buffer[self._end : end] = tail
        return entries, self.view(0, end)


@dataclass(frozen=True, slots=True)
class _Foot:
    """Where a pack's own index lies, and what it holds."""

    version: int
    offset: int
    length: int
    chunks: int
    frames: int
    origins: int

    @classmethod
    def of(cls, entries: PackEntries, offset: int, length: int) -> _Foot:
        return cls(layout.VERSION, offset, length, len(entries), len(entries.counts), entries.origins)

    def encode(self) -> bytes:
        header = layout.header(layout.Kind.FOOTER, self.version)
        if self.version == 0:
            return layout.PACK_FOOT_0.pack(self.offset, self.length, self.chunks, header)
        return layout.PACK_FOOT.pack(self.offset, self.length, self.chunks, self.frames, self.origins, header)

    @classmethod
    def decode(cls, tail: bytes, size: int) -> _Foot:
        """From the end of a pack of ``size`` bytes. ``ValueError``."""
        version = tail[-1] if tail else -1
        shape = layout.PACK_FOOT_0 if version == 0 else layout.PACK_FOOT
        if version not in layout.READABLE or len(tail) < shape.size:
            raise ValueError("not a foot")
        offset, length, chunks, *more, _ = shape.unpack(tail[-shape.size :])
        frames, origins = more or (chunks, 0)
        found = cls(version, offset, length, chunks, frames, origins)
        if found.encode() != tail[-shape.size :] or offset + length + shape.size != size:
            raise ValueError("not a foot")
        return found

    def split(self, pack_id: bytes, chunk_class: int, payload: bytes) -> tuple[PackEntries, bytes]:
        """The table, and the digests of the frames."""
        start = len(payload) - layout.DIGEST_LENGTH * self.frames
        if start < 0:
            raise ValueError("too short")
        if self.version == 0:
            entries = PackEntries.decode_0(pack_id, chunk_class, self.chunks, payload[:start])
        else:
            counts = self.chunks, self.frames, self.origins
            entries = PackEntries.decode(pack_id, chunk_class, *counts, payload[:start])
        return entries, payload[start:]


_CONTEXT = struct.Struct("<BHIII")


def _index_context(chunk_class: int, foot: _Foot) -> bytes:
    if foot.version == 0:
        return bytes([chunk_class]) + foot.chunks.to_bytes(4, "little") + foot.offset.to_bytes(4, "little")
    return _CONTEXT.pack(chunk_class, foot.origins, foot.chunks, foot.frames, foot.offset)


def _head(pack_id: bytes, chunk_class: int, version: int = layout.VERSION) -> bytes:
    return layout.header(layout.Kind.PACK, version) + layout.PACK_HEAD.pack(pack_id, chunk_class)


def read_entries(secrets: Secrets, store: Store, pack_id: bytes, size: int) -> PackEntries:
    """From the own index of a pack of ``size`` bytes. ``Damaged`` when it is not whole, ``Missing`` when not there."""
    return read_index(secrets, store, pack_id, size)[0]


def read_index(secrets: Secrets, store: ReadsRanges, pack_id: bytes, size: int) -> tuple[PackEntries, bytes]:
    """As ``read_entries``, and the BLAKE3 of each sealed frame, 32 bytes each."""
    name = pack_key(pack_id)
    try:
        head = store.read_range(name, 0, layout.PACK_START)
        if size < layout.PACK_START + layout.PACK_FOOT_0.size:
            raise ValueError("too short")
        room = min(size - layout.PACK_START, layout.PACK_FOOT.size)
        foot = _Foot.decode(store.read_range(name, size - room, room), size)
        chunk_class = _checked_head(head, pack_id, foot.version)
        sealed = store.read_range(name, foot.offset, foot.length)
        payload = seal.open_pack_index(secrets, pack_id, _index_context(chunk_class, foot), sealed)
        entries, digests = foot.split(pack_id, chunk_class, payload)
        if entries.frames_bytes != foot.offset - layout.PACK_START:
            raise ValueError("lengths")
    except (ValueError, InvalidTag):
        raise errors.Damaged(f"{name} is damaged: its own index cannot be read.", object=name) from None
    return entries, digests


def _checked_head(head: bytes, pack_id: bytes, version: int) -> int:
    if len(head) != layout.PACK_START:
        raise ValueError("too short")
    _, chunk_class = layout.PACK_HEAD.unpack(head[layout.HEADER_LENGTH :])
    if head != _head(pack_id, chunk_class, version):
        raise ValueError("not the head of this pack")
    return int(chunk_class)
