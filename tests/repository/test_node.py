"""The bytes of a node of an image tree, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.repository import node

IDS = st.binary(min_size=32, max_size=32)


@given(st.lists(st.none() | IDS, min_size=1, max_size=40), st.integers(0, 5))
def test_what_is_encoded_is_decoded_the_same(slots: node.Slots, level: int) -> None:
    data = node.encode(level, slots)
    if data is None:
        assert not any(slots)
    else:
        assert node.decode(data, level, len(slots)) == slots


def test_bytes_of_a_leaf() -> None:
    one, two = b"1" * 32, b"2" * 32
    assert node.encode(0, [None, one, *[None] * 7, two]) == b"\0" + b"\x02\x02" + one + two


def test_a_full_leaf_is_33_kib() -> None:
    data = node.encode(0, [bytes([number % 256]) * 32 for number in range(1024)])
    assert data is not None
    assert len(data) == 1 + 128 + 1024 * 32
    assert node.decode(data, 0, 1024)[257] == b"\1" * 32


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\1",
        b"\1\1" + bytes(32),
        b"\0\1" + bytes(31),
        b"\0\1" + bytes(64),
        b"\0\x10" + bytes(32),
    ],
)
def test_what_is_no_leaf_of_four(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a node of this level$"):
        node.decode(data, 0, 4)
