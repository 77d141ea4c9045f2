"""What the frames say. See docs/agent-protocol.md.

======== ====== =========================================== =====================================
kind     way    payload
======== ====== =========================================== =====================================
HELLO    in     JSON                                        begins a session; ends all before it
WELCOME  out    JSON                                        the answer; after a preamble of zeroes
ASK      in     JSON, ``do`` names what                     answered by NOTEs and one ANSWER or REFUSAL
READ     in     target (JSON), extents                      answered by DATA, ZEROES and one ANSWER or REFUSAL
CREDIT   in     I bytes                                     so many bytes of DATA more may be sent
CANCEL   in     empty                                       end this request: REFUSAL ``cancelled``
FILE     in     Q position, bytes                           a part of a newer agentd
NOTE     out    JSON                                        more will come
ANSWER   out    JSON                                        done
REFUSAL  out    JSON ``code``, ``text``                     not done
DATA     out    Q start, content                            a piece of a disk
ZEROES   out    Q start, Q length                           a piece that is all zeroes; costs no credit
======== ====== =========================================== =====================================

Whoever does not know a key of a JSON object ignores it; an ASK that is not known is refused.
"""

import json
import struct
from typing import Any, Dict, List, NamedTuple, Tuple

HELLO, WELCOME, ASK, READ, CREDIT, CANCEL, FILE, NOTE, ANSWER, REFUSAL, DATA, ZEROES = range(1, 13)

#: Codes of a REFUSAL.
CANCELLED = "cancelled"
#: The frame belongs to no session of this agentd's: it was restarted.
STRANGE = "strange"
UNKNOWN = "unknown"
WRONG = "wrong"
FAILED = "failed"

#: Content of one DATA frame at most; frames do not cross multiples of it.
PIECE = 256 * 1024
#: Extents of one READ at most, so that its frame stays below ``frames.TO_GUEST``.
EXTENTS = 1024

#: Name of the virtio-serial port.
PORT = "org.headstart.agent.0"
#: Port number on vsock: the letters H and S.
VSOCK_PORT = 0x4853

_LENGTH = struct.Struct(">H")
_EXTENT = struct.Struct(">QQ")
_CREDIT = struct.Struct(">I")
_POSITION = struct.Struct(">Q")

Span = Tuple[int, int]  # start, length


class Malformed(Exception):
    """A payload that says nothing sensible."""


def pack_json(value: Dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


def unpack_json(payload: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    if not isinstance(value, dict):
        raise Malformed("not an object")
    return value


class Read(NamedTuple):
    """``target`` says which device, see ``agentd.targets``; ``spans`` are in the addressing it names."""

    target: Dict[str, Any]
    spans: List[Span]


def pack_read(read: Read) -> bytes:
    target = pack_json(read.target)
    return _LENGTH.pack(len(target)) + target + b"".join(_EXTENT.pack(*span) for span in read.spans)


def unpack_read(payload: bytes) -> Read:
    try:
        (length,) = _LENGTH.unpack_from(payload)
        begin = _LENGTH.size + length
        spans = list(_EXTENT.iter_unpack(payload[begin:]))
    except struct.error as error:
        raise Malformed(str(error)) from None
    if not spans or len(spans) > EXTENTS or not all(length for _, length in spans):
        raise Malformed("no extents, too many, or empty ones")
    return Read(unpack_json(payload[_LENGTH.size : begin]), spans)


def pack_credit(count: int) -> bytes:
    return _CREDIT.pack(count)


def unpack_credit(payload: bytes) -> int:
    if len(payload) != _CREDIT.size:
        raise Malformed("no credit")
    (count,) = _CREDIT.unpack(payload)
    return int(count)


def pack_position(position: int) -> bytes:
    """In front of what DATA and FILE carry."""
    return _POSITION.pack(position)


def unpack_position(payload: bytes) -> Tuple[int, bytes]:
    if len(payload) <= _POSITION.size:
        raise Malformed("nothing at a position")
    (position,) = _POSITION.unpack_from(payload)
    return position, payload[_POSITION.size :]


def pack_span(span: Span) -> bytes:
    return _EXTENT.pack(*span)


def unpack_span(payload: bytes) -> Span:
    if len(payload) != _EXTENT.size:
        raise Malformed("no extent")
    start, length = _EXTENT.unpack(payload)
    return start, length
