"""Compression: what goes in comes out, and nothing else is taken for a frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.repository import codec, layout
from tests.repository.samples import noise


@given(st.binary(max_size=2000))
def test_roundtrip(data: bytes) -> None:
    assert codec.decompress(codec.compress(data), len(data)) == data
    assert codec.decompress_frame(codec.compress(data), len(data)) == data


def test_shrinks_what_shrinks() -> None:
    assert codec.shrink(bytes(65536))[0] == layout.COMPRESSED
    data = noise(1)
    assert codec.shrink(data) == (0, data)


@pytest.mark.parametrize("length", [0, 9, 11])
def test_another_length(length: int) -> None:
    with pytest.raises(ValueError, match=r"length|memory"):
        codec.decompress(codec.compress(bytes(10)), length)


def test_no_frame() -> None:
    with pytest.raises(ValueError):
        codec.decompress(b"no frame at all", 10)
