"""Payloads: what is packed is unpacked, and anything else is Malformed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.agentd import asks, frames, messages
from headstart.agentd.messages import Malformed, Read

spans = st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 2**64 - 1))
texts = st.text(max_size=30)
UNPACKERS: tuple[Callable[[bytes], Any], ...] = (
    messages.unpack_json,
    messages.unpack_read,
    messages.unpack_credit,
    messages.unpack_position,
    messages.unpack_span,
)


@given(st.dictionaries(texts, texts, max_size=4), st.lists(spans, min_size=1, max_size=40))
def test_a_read_is_what_was_packed(target: dict[str, str], wanted: list[messages.Span]) -> None:
    assert messages.unpack_read(messages.pack_read(Read(target, wanted))) == Read(target, wanted)


@given(st.dictionaries(texts, st.one_of(texts, st.integers(), st.none(), st.lists(st.booleans())), max_size=4))
def test_json_is_what_was_packed(value: dict[str, Any]) -> None:
    assert messages.unpack_json(messages.pack_json(value)) == value


def test_numbers_are_what_was_packed() -> None:
    assert messages.unpack_credit(messages.pack_credit(2**32 - 1)) == 2**32 - 1
    assert messages.unpack_position(messages.pack_position(2**63) + b"x") == (2**63, b"x")
    assert messages.unpack_span(messages.pack_span((5, 7))) == (5, 7)


@pytest.mark.parametrize("unpack", UNPACKERS)
@given(payload=st.binary(max_size=80))
def test_anything_is_understood_or_malformed(unpack: Callable[[bytes], Any], payload: bytes) -> None:
    with contextlib.suppress(Malformed):
        unpack(payload)


@pytest.mark.parametrize(
    "payload",
    [b"[" * 100_000, b'{"a":' * 20_000, b"[]", b"1" * 10_000, b"\xff", b"", b'"text"', b"null", b'{"a":1}{}'],
    ids=lambda payload: repr(payload[:8]),
)
def test_json_that_is_no_object(payload: bytes) -> None:
    with pytest.raises(Malformed):
        messages.unpack_json(payload)


@pytest.mark.parametrize(
    "payload",
    [
        messages.pack_read(Read({}, [])),
        messages.pack_read(Read({}, [(0, 0)])),
        messages.pack_read(Read({}, [(0, 1)] * (messages.EXTENTS + 1))),
        messages.pack_read(Read({}, [(0, 1)]))[:-1],
        b"\xff\xff{}",
        b"\0",
        b"\0\2[]" + messages.pack_span((0, 1)),
    ],
)
def test_reads_of_nothing_of_too_much_and_cut_off(payload: bytes) -> None:
    with pytest.raises(Malformed):
        messages.unpack_read(payload)


def test_the_longest_read_fits_a_frame() -> None:
    target = {"disk": "x" * 100, "through": "y" * 100}
    assert len(messages.pack_read(Read(target, [(2**63, 1)] * messages.EXTENTS))) < frames.TO_GUEST


def test_the_longest_piece_fits_a_frame() -> None:
    assert len(messages.pack_position(0)) + messages.PIECE <= frames.FROM_GUEST


BOOK = (Path(__file__).parents[2] / "docs" / "agent-protocol.md").read_text()


def test_the_book_has_the_kinds() -> None:
    found = {name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z]+) \| (?:in|out) ", BOOK, re.M)}
    names = ["HELLO", "WELCOME", "ASK", "READ", "CREDIT", "CANCEL", "FILE", "NOTE", "ANSWER", "REFUSAL", "DATA"]
    assert found == {name: getattr(messages, name) for name in [*names, "ZEROES"]}


def test_the_book_has_what_can_be_asked() -> None:
    asked = BOOK[BOOK.index("## What can be asked") : BOOK.index("**Map.**")]
    assert set(re.findall(r"^\| `(\w+)` \|", asked, re.M)) == {"do", *asks.HANDLERS, "renew", "install"}


@pytest.mark.parametrize("code", ["CANCELLED", "STRANGE", "UNKNOWN", "WRONG", "FAILED"])
def test_the_book_has_the_codes(code: str) -> None:
    assert f"| `{getattr(messages, code)}` |" in BOOK


def test_the_book_has_the_limits() -> None:
    payloads = (frames.TO_GUEST, frames.FROM_GUEST)
    numbers = (*payloads, *(longest + frames.HEADER_SIZE for longest in payloads))
    assert all(f"{number:,}" in BOOK for number in numbers)
    assert " ".join(f"{byte:02X}" for byte in frames.MAGIC) in BOOK
