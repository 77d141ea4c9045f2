"""What passes to an NBD server, however it is cut into pieces, and what does not."""

from __future__ import annotations

import struct

import pytest

from headstart.appliance import gate
from headstart.appliance.gate import Forbidden, Gate
from headstart.reading import PIECE_SIZE

NAME = b"hs-export"
FLAGS = struct.pack("!I", 3)
READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, ZERO, STATUS = 0, 1, 2, 3, 4, 5, 6, 7


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack("!II", number, len(data)) + data


def request(kind: int, length: int = 4096, *, flags: int = 0) -> bytes:
    return struct.pack("!IHHQQI", 0x25609513, flags, kind, 7, 1 << 20, length)


def named(name: bytes) -> bytes:
    return struct.pack("!I", len(name)) + name


def passed(gate: Gate, data: bytes) -> tuple[bytes, bytes]:
    found = list(gate.feed(data))
    return b"".join(each.to_server for each in found), b"".join(each.to_client for each in found)


GO = option(7, named(NAME) + b"\0\0")
CONTEXT = option(10, named(NAME) + struct.pack("!I", 1) + named(b"base:allocation"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (option(8), option(8)),
        (option(8, b"more"), option(8)),
        (option(7, named(b"") + b"\0\0"), GO),
        (option(7, named(b"another") + b"\0\1\0\1"), GO),
        (option(7, b"nonsense"), GO),
        (option(10, named(b"another") + struct.pack("!I", 1) + named(b"qemu:dirty-bitmap:theirs")), CONTEXT),
    ],
    ids=["structured", "with data", "by no name", "by another name", "nonsense", "another context"],
)
def test_whatever_is_asked_for_the_one_export_is_meant(said: bytes, told: bytes) -> None:
    assert passed(Gate(NAME), FLAGS + said) == (FLAGS + told, b"")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 9, 11, 99])
def test_other_options_are_answered_here(number: int) -> None:
    """``NBD_OPT_EXPORT_NAME``, ``ABORT``, ``LIST``, ``STARTTLS``, ``INFO``, ``LIST_META_CONTEXT``, and what comes."""
    to_server, to_client = passed(Gate(NAME), FLAGS + option(number, named(b"another")))
    assert to_server == FLAGS
    assert to_client == struct.pack("!QIII", 0x3E889045565A9, number, 0x80000001, 0)


def test_reading_passes_as_it_is() -> None:
    said = request(READ, PIECE_SIZE) + request(STATUS, 0xFFFFFFFF, flags=8) + request(DISCONNECT, 0)
    assert passed(Gate(NAME), FLAGS + GO + said) == (FLAGS + GO + said, b"")
    assert gate.LONGEST_READ == PIECE_SIZE


@pytest.mark.parametrize(
    "said",
    [
        *(request(kind) for kind in (WRITE, FLUSH, TRIM, CACHE, ZERO, 8, 0xFFFF)),
        request(READ, PIECE_SIZE + 1),
        b"GET / HTTP/1.0\r\nHost: somebody\r\n\r\n",
        option(7, bytes(5000)),
    ],
    ids=["write", "flush", "trim", "cache", "zero", "resize", "unknown", "too long", "no NBD", "too long an option"],
)
def test_anything_else_ends_it(said: bytes) -> None:
    opened = Gate(NAME)
    passed(opened, FLAGS + GO)
    with pytest.raises(Forbidden):
        passed(opened, said)


@pytest.mark.parametrize("size", [1, 3, 27, 28, 29])
def test_pieces_of_any_size_are_understood(size: int) -> None:
    said = FLAGS + option(8) + CONTEXT + GO + request(READ) + request(STATUS) + request(READ, 512)
    pieces = [said[start : start + size] for start in range(0, len(said), size)]
    opened = Gate(NAME)
    assert b"".join(passed(opened, piece)[0] for piece in pieces) == said
