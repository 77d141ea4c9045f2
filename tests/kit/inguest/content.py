"""Bytes that the guest writes and the host can compute again."""

from __future__ import annotations

import random

PIECE = 1 << 20


def random_bytes(seed: int | str, length: int) -> bytes:
    """The same bytes for the same seed, in the guest and outside; a longer answer begins with the shorter."""
    pieces = []
    for index in range(0, length, PIECE):
        generator = random.Random(f"{seed}:{index // PIECE}")
        pieces.append(generator.randbytes(PIECE)[: length - index])
    return b"".join(pieces)
