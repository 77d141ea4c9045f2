"""Frames on a byte stream that has no records, outlives both ends and may begin in the middle of one.

::

     0  4s  magic              8  I  request         24  I  Adler-32 of the payload
     4  B   frame version     12  Q  session         28  I  CRC-32 of bytes 0-27
     5  B   kind              20  I  length          32     payload
     6  H   0

All numbers are big endian. See docs/agent-protocol.md. A decoder that finds anything else than a sound
frame looks for the next magic one byte further on: nothing that was swallowed as the payload of a
broken frame is lost.
"""

import struct
import zlib
from typing import Iterator, NamedTuple, Optional, Union

MAGIC = b"\xabHSA"
VERSION = 1
_HEADER = struct.Struct(">4sBBHIQII")
_CHECKSUM = struct.Struct(">I")
HEADER_SIZE = _HEADER.size + _CHECKSUM.size

#: Longest payload towards the guest, and from it. The way in is short, so that little has to be sent to
#: bring an agent that waits for the rest of a broken frame back in step.
TO_GUEST = 32 * 1024
FROM_GUEST = 256 * 1024 + 16

#: Adler-32 for payloads: it costs the guest half of what CRC-32 does.
_EMPTY = zlib.adler32(b"")

Buffer = Union[bytes, memoryview]


class Frame(NamedTuple):
    kind: int
    session: int
    request: int
    payload: bytes


def header(kind: int, session: int, request: int, *payload: Buffer) -> bytes:
    """What goes in front of a payload that may come in several parts."""
    length, checksum = 0, _EMPTY
    for part in payload:
        length += len(part)
        checksum = zlib.adler32(part, checksum)
    start = _HEADER.pack(MAGIC, VERSION, kind, 0, request, session, length, checksum)
    return start + _CHECKSUM.pack(zlib.crc32(start))


def encode(kind: int, session: int, request: int, payload: bytes = b"") -> bytes:
    return header(kind, session, request, payload) + payload


def preamble(longest: int) -> bytes:
    """Bytes that end whatever broken frame the other side's decoder waits for."""
    return bytes(longest + HEADER_SIZE)


class Decoder:
    """Frames out of bytes as they arrive. ``longest`` bounds a payload, and so the memory.

    Each false frame may cost the time to look at ``longest`` bytes: after more than ``patience`` of them nothing is
    looked at any longer."""

    def __init__(self, longest: int, patience: float = float("inf")) -> None:
        self._longest = longest
        self._patience = patience
        self._pending = bytearray()
        #: What began with the magic and was not a sound frame. A stream of ours holds none, except where one was cut.
        self.damaged = 0

    @property
    def hopeless(self) -> bool:
        return self.damaged > self._patience

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """The frames that are complete with ``data``. To be used up before the next call."""
        self._pending += data
        position = 0
        try:
            while not self.hopeless:
                position = self._next_magic(position)
                if len(self._pending) - position < HEADER_SIZE:
                    return
                found = self._header_at(position)
                end = position + HEADER_SIZE + (found.length if found else 0)
                if end > len(self._pending):
                    return
                frame = found and self._frame(found, position + HEADER_SIZE, end)
                if frame:
                    position = end
                    yield frame
                else:
                    self.damaged += 1
                    position += 1
            position = len(self._pending)
        finally:
            del self._pending[:position]

    def _next_magic(self, position: int) -> int:
        found = self._pending.find(MAGIC, position)
        if found >= 0:
            return found
        # The last bytes may be the beginning of one.
        tail = max(position, len(self._pending) - len(MAGIC) + 1)
        while tail < len(self._pending) and not MAGIC.startswith(bytes(self._pending[tail:])):
            tail += 1
        return tail

    def _header_at(self, position: int) -> "Optional[_Header]":
        """None if it is not sound."""
        start = bytes(self._pending[position : position + _HEADER.size])
        (sound,) = _CHECKSUM.unpack_from(self._pending, position + _HEADER.size)
        if sound != zlib.crc32(start):
            return None
        _, version, kind, _, request, session, length, checksum = _HEADER.unpack(start)
        if version != VERSION or length > self._longest:
            return None
        return _Header(kind, session, request, length, checksum)

    def _frame(self, found: "_Header", begin: int, end: int) -> Optional[Frame]:
        """None if the payload is not what the header promises."""
        payload = bytes(memoryview(self._pending)[begin:end])
        if zlib.adler32(payload) != found.checksum:
            return None
        return Frame(found.kind, found.session, found.request, payload)


class _Header(NamedTuple):
    kind: int
    session: int
    request: int
    length: int
    checksum: int
