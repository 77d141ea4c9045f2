"""What a host and an appliance say to each other, over TLS. See docs/appliance.md.

::

    host                                        appliance
    HELLO  protocols, repository       --->
                                       <---     WELCOME | REFUSAL
    OFFER  disk, size, token, secret   --->
                                       <---     READY        the disk may be brought, as a connection of its own
    (a connection: the token, then TLS: the secret, then NBD)
                                       <---     OPENED
    READ   disk, request, extents      --->
                                       <---     READING      so many bytes more of it
                                       <---     STORED, PACKS   durable; of any request
                                       <---     READ_ALL     of this request
    FLUSH                              --->
                                       <---     FLUSHED      everything that was read is durable, and listed

A frame is the length of its payload (4 bytes), a kind (1 byte), the payload. Numbers are in network byte order.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from headstart.extents import Extent
from headstart.repository import layout
from headstart.transfer.pipeline import Stored

#: Oldest and newest that this program speaks.
PROTOCOLS = (1, 1)
#: IANA has none for us; next to NBD's.
PORT = 10810
#: A connection that brings a disk begins with this and a token; one with orders begins with TLS's first byte.
DATA_MAGIC = b"HEADSTART DISK "
TOKEN_LENGTH = 64
TLS_FIRST_BYTE = 0x16
#: What refuses.
STRANGE, BUSY, UNREADABLE, STORE, FAILED = "strange", "busy", "unreadable", "store", "failed"

MAX_PAYLOAD = 1 << 20
#: In a frame.
EXTENTS = 16_384
BLOCKS = 16_384
_HEADER = struct.Struct("!IB")
_READ = struct.Struct("!II")
_SPAN = struct.Struct("!QQ")
_DISK = struct.Struct("!I")
_BLOCK = struct.Struct(f"!I{layout.CHUNK_ID_LENGTH}s")
_PROGRESS = struct.Struct("!II")
_ZEROES = bytes(layout.CHUNK_ID_LENGTH)


class Malformed(ValueError):
    """Not what anybody of us says."""


class Kind(IntEnum):
    HELLO = 1
    WELCOME = 2
    OFFER = 3
    READY = 4
    OPENED = 5
    READ = 6
    READING = 7
    READ_ALL = 8
    STORED = 9
    PACKS = 10
    FLUSH = 11
    FLUSHED = 12
    REFUSAL = 13


class Frame(NamedTuple):
    kind: Kind
    payload: bytes


class Decoder:
    """From bytes as they come to frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises ``Malformed``: then nothing that follows can be understood."""
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            length, kind = _HEADER.unpack_from(self._rest)
            if length > MAX_PAYLOAD:
                raise Malformed("a frame that is too long")
            end = _HEADER.size + length
            if len(self._rest) < end:
                return
            payload = bytes(self._rest[_HEADER.size : end])
            del self._rest[:end]
            try:
                yield Frame(Kind(kind), payload)
            except ValueError:
                raise Malformed(f"a frame of kind {kind}") from None


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    return _HEADER.pack(len(payload), kind) + payload


def pack_json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def unpack_json(payload: bytes) -> dict[str, Any]:
    try:
        values = json.loads(payload)
    except ValueError:
        raise Malformed("no JSON") from None
    if not isinstance(values, dict):
        raise Malformed("no object of JSON")
    return values


class Read(NamedTuple):
    disk: int
    request: int
    extents: list[Extent]


def pack_read(disk: int, request: int, extents: Sequence[Extent]) -> bytes:
    return _READ.pack(disk, request) + b"".join(_SPAN.pack(each.start, each.length) for each in extents)


def unpack_read(payload: bytes) -> Read:
    """Sorted and disjoint extents, as readers want them."""
    try:
        disk, request = _READ.unpack_from(payload)
        found = [Extent(*span) for span in _SPAN.iter_unpack(payload[_READ.size :])]
    except (struct.error, ValueError):
        raise Malformed("a request that makes no sense") from None
    if any(one.end > other.start for one, other in itertools.pairwise(found)):
        raise Malformed("extents that are not sorted")
    return Read(disk, request, found)


def pack_stored(disk: int, stored: Sequence[Stored]) -> bytes:
    """All of one disk, at most ``BLOCKS``."""
    return _DISK.pack(disk) + b"".join(_BLOCK.pack(each.block, each.chunk or _ZEROES) for each in stored)


def unpack_stored(payload: bytes) -> tuple[int, list[tuple[int, bytes | None]]]:
    """The disk; blocks and their chunks, None for zeroes. (No keyed hash is all zeroes.)"""
    try:
        (disk,) = _DISK.unpack_from(payload)
        found = list(_BLOCK.iter_unpack(payload[_DISK.size :]))
    except struct.error:
        raise Malformed("blocks that make no sense") from None
    return disk, [(block, None if chunk == _ZEROES else chunk) for block, chunk in found]


def pack_packs(packs: Sequence[str]) -> bytes:
    """Their ids, in hex."""
    return b"".join(map(bytes.fromhex, packs))


def unpack_packs(payload: bytes) -> list[str]:
    length = layout.OBJECT_ID_LENGTH
    if len(payload) % length:
        raise Malformed("ids of packs of another length")
    return [payload[start : start + length].hex() for start in range(0, len(payload), length)]


def pack_progress(request: int, count: int = 0) -> bytes:
    return _PROGRESS.pack(request, count)


def unpack_progress(payload: bytes) -> tuple[int, int]:
    try:
        request, count = _PROGRESS.unpack(payload)
    except struct.error:
        raise Malformed("progress that makes no sense") from None
    return request, count
