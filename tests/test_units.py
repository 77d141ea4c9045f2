"""Bytes and seconds, as people read them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from headstart import units
from headstart.units import GIB, KIB, MIB, TIB


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (983 * KIB, "983.0 KiB"),
        (MIB - 52, "1023.9 KiB"),
        (MIB - 1, "1.0 MiB"),
        (MIB, "1.0 MiB"),
        (GIB - 1, "1.0 GiB"),
        (TIB - 1, "1.0 TiB"),
        (5 * GIB + GIB // 4, "5.2 GiB"),
        (6 * TIB, "6.0 TiB"),
        (5000 * TIB, "5000.0 TiB"),
    ],
)
def test_bytes_as_people_read_them(count: int, text: str) -> None:
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1, "1.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (60, "1 min 0 s"),
        (75, "1 min 15 s"),
        (119.7, "2 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7384, "2 h 3 min"),
    ],
)
def test_seconds_as_people_read_them(seconds: float, text: str) -> None:
    assert units.format_seconds(seconds) == text


@given(some.integers(0, 2**60))
def test_bytes_are_told_to_a_tenth(count: int) -> None:
    number, name = units.format_bytes(count).split()
    unit = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}[name]
    assert abs(float(number) * unit - count) <= 0.051 * unit
    assert float(number) < 1024 or name == "TiB"


@given(some.floats(0, 1e7))
@example(59.96)
@example(0.9996)
def test_seconds_are_never_told_as_sixty(seconds: float) -> None:
    words = units.format_seconds(seconds).split()
    told = dict(zip(words[1::2], map(float, words[::2]), strict=True))
    assert told.get("s", 0) < 60
    assert told.get("min", 0) < 60
    assert told.get("ms", 0) < 1000
