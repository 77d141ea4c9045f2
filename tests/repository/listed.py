"""Entries of packs as an index object lists them."""

from __future__ import annotations

from array import array

from hypothesis import strategies as st

from headstart.repository.layout import ChunkClass
from headstart.repository.packtable import PackEntries

IDS = st.binary(min_size=32, max_size=32)


def entries(number: int, ids: list[bytes]) -> PackEntries:
    """Frames of one, two, three chunks, and so on."""
    frames: list[int] = []
    while sum(frames) < len(ids):
        frames.append(min(len(frames) + 1, len(ids) - sum(frames)))
    return PackEntries(
        bytes([number]) * 16,
        ChunkClass.CONTENT,
        b"".join(ids),
        array("I", [200 + place for place in range(len(ids))]),
        bytes(frames),
        array("I", [100 + frame for frame in range(len(frames))]),
        bytes(frame % 2 for frame in range(len(frames))),
    )
