"""What passes between us and the process that parses: frames of a kind, a length and a body.

====  ====  =========================================================================
 to          body
====  ====  =========================================================================
 C     it    a call: JSON, {"call", arguments}
 N     us    bytes of a disk are needed: JSON, [disk, start, length]
 B     both  bytes: the answer to N, and to a call that reads
 F     it    they cannot be read
 P     us    a part of the answer: JSON
 D     us    the answer, or its end: JSON
 E     us    what went wrong: JSON, [kind, text]
====  ====  =========================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO

HEADER = struct.Struct(">cI")
#: Bytes of a body.
LONGEST = 64 << 20
#: Bytes of one need.
MOST_NEEDED = 4 << 20

CALL, NEED, BYTES, FAULT, PART, DONE, ERROR = b"C", b"N", b"B", b"F", b"P", b"D", b"E"

#: Kinds of errors.
MALFORMED, NOT_SUPPORTED, CONFUSED = "malformed", "not supported", "confused"


#: Returns when a stream can be read, or written; raises if that takes too long.
Ready = Callable[[], None]


def put(stream: BinaryIO, kind: bytes, body: bytes = b"", ready: Ready = lambda: None) -> None:
    """Where ``ready`` waits, the stream should not block."""
    left = memoryview(HEADER.pack(kind, len(body)) + body)
    while left:
        ready()
        left = left[stream.write(left) or 0 :]
    stream.flush()


def get(stream: BinaryIO, ready: Ready = lambda: None) -> tuple[bytes, bytes]:
    """Raises ``EOFError`` when the other side has gone, ``ValueError`` for what is no frame."""
    kind, length = HEADER.unpack(_exactly(stream, HEADER.size, ready))
    if length > LONGEST:
        raise ValueError("a frame that is too long")
    return kind, _exactly(stream, length, ready)


def _exactly(stream: BinaryIO, length: int, ready: Ready) -> bytes:
    """Also from a stream without a buffer."""
    parts: list[bytes] = []
    while length:
        ready()
        part = stream.read(length)
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
