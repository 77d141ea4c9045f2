"""What whoever is offered one disk may say to the NBD server that has it (NBD proto.md); standard library only.

::

    the other end                         Gate                                  the server
    flags, options    --->   of three options ours, with the one name   --->    negotiates
    requests          --->   read, block status, disconnect             --->    answers

What goes to the server is made here from what was understood, so that no other export can be named or listed, nothing
be written, and no answer be larger than one read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

#: The one that is offered.
CONTEXT = b"base:allocation"
#: What a client of ours reads at once (headstart.reading.PIECE_SIZE).
LONGEST_READ = 1 << 20

_OPTION_MAGIC = b"IHAVEOPT"
_REPLY_MAGIC = 0x0003E889045565A9
_REQUEST_MAGIC = 0x25609513
_FLAGS = struct.Struct("!I")
_OPTION = struct.Struct("!8sII")
_REPLY = struct.Struct("!QIII")
_REQUEST = struct.Struct("!IHHQQI")
_LENGTH = struct.Struct("!I")
_COUNT = struct.Struct("!H")
#: Fixed newstyle, and no zeroes after an option that nobody may use.
_CLIENT_FLAGS = 3
_GO, _STRUCTURED_REPLY, _SET_META_CONTEXT = 7, 8, 10
_UNSUPPORTED = (1 << 31) + 1
_LONGEST_OPTION = 4096
_READ, _DISCONNECT, _BLOCK_STATUS = 0, 2, 7


class Forbidden(Exception):
    """The connection has to end."""


class Passed(NamedTuple):
    """What is to be sent where."""

    to_server: bytes
    to_client: bytes = b""


class Gate:
    """``export``: the one that may be opened, whatever the other end calls it."""

    def __init__(self, export: bytes) -> None:
        name = _LENGTH.pack(len(export)) + export
        #: With what each option that may be asked for goes to the server.
        self._options = {
            _STRUCTURED_REPLY: b"",
            _SET_META_CONTEXT: name + _LENGTH.pack(1) + _LENGTH.pack(len(CONTEXT)) + CONTEXT,
            _GO: name + _COUNT.pack(0),
        }
        self._rest = bytearray()
        self._greeted = False

    def feed(self, data: bytes | memoryview) -> Iterator[Passed]:
        """Raises ``Forbidden``. Less than one option or request is kept."""
        self._rest += data
        if not self._greeted and len(self._rest) >= _FLAGS.size:
            del self._rest[: _FLAGS.size]
            self._greeted = True
            yield Passed(_FLAGS.pack(_CLIENT_FLAGS))
        while self._greeted and (passed := self._next()) is not None:
            yield passed

    def _next(self) -> Passed | None:
        # Both headers are at least as long as an option's.
        if len(self._rest) < _OPTION.size:
            return None
        return self._option() if self._rest.startswith(_OPTION_MAGIC) else self._request()

    def _option(self) -> Passed | None:
        _, option, length = _OPTION.unpack_from(self._rest)
        if length > _LONGEST_OPTION:
            raise Forbidden("an option that is too long")
        if len(self._rest) < _OPTION.size + length:
            return None
        del self._rest[: _OPTION.size + length]
        data = self._options.get(option)
        if data is None:
            return Passed(b"", _REPLY.pack(_REPLY_MAGIC, option, _UNSUPPORTED, 0))
        return Passed(_OPTION.pack(_OPTION_MAGIC, option, len(data)) + data)

    def _request(self) -> Passed | None:
        if len(self._rest) < _REQUEST.size:
            return None
        header = bytes(self._rest[: _REQUEST.size])
        magic, _, kind, _, _, length = _REQUEST.unpack(header)
        if magic != _REQUEST_MAGIC:
            raise Forbidden("something that is no NBD")
        if kind not in (_READ, _DISCONNECT, _BLOCK_STATUS) or (kind == _READ and length > LONGEST_READ):
            raise Forbidden(f"a request of kind {kind} for {length} bytes")
        del self._rest[: _REQUEST.size]
        return Passed(header)
