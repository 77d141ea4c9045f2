"""Nodes of image trees, as bytes.

::

    level (1 byte) | one bit per slot, lowest first | the id of every slot whose bit is set

A slot of a leaf (level 0) is a block and its chunk, one of an inner node is a node one level below. An empty slot
is all zeroes, and so is a node without any: it is not stored.
"""

from __future__ import annotations

from headstart.repository import layout

Slots = list[bytes | None]


def encode(level: int, slots: Slots) -> bytes | None:
    """None when every slot is empty."""
    ids = [slot for slot in slots if slot is not None]
    if not ids:
        return None
    bitmap = bytearray(bitmap_length(len(slots)))
    for number, slot in enumerate(slots):
        if slot is not None:
            bitmap[number >> 3] |= 1 << (number & 7)
    return bytes([level]) + bitmap + b"".join(ids)


def decode(data: bytes, level: int, count: int) -> Slots:
    """``ValueError`` when ``data`` is no node of this level with ``count`` slots."""
    start = 1 + bitmap_length(count)
    bitmap = int.from_bytes(data[1:start], "little")
    step = layout.CHUNK_ID_LENGTH
    if len(data) != start + step * bitmap.bit_count() or data[0] != level or not bitmap or bitmap >> count:
        raise ValueError("not a node of this level")
    ids = iter([data[offset : offset + step] for offset in range(start, len(data), step)])
    return [next(ids) if bit == "1" else None for bit in reversed(f"{bitmap:0{count}b}")]


def bitmap_length(count: int) -> int:
    return (count + 7) // 8
