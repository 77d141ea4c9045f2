"""Columns of numbers, little-endian, as objects hold them."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable


def encode(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def decode(data: bytes, kind: str = "I") -> array[int]:
    numbers = array(kind, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def cut(data: bytes, widths: Iterable[int]) -> list[bytes]:
    """``data`` in columns of so many bytes; ``ValueError`` when it is not as long."""
    found, start = list[bytes](), 0
    for width in widths:
        found.append(data[start : start + width])
        start += width
    if start != len(data):
        raise ValueError("wrong length of a table")
    return found
