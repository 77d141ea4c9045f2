"""Traces for tests: hot blocks, cold ones, long writes, at uneven times."""

from __future__ import annotations

import random
from pathlib import Path

from tests.simulation.scorer import BLOCK, Write


def writes(seed: int, *, hours: float = 24.0, every: float = 20.0, hot: int = 200, size: int = 1 << 34) -> list[Write]:
    """In the order of time: half of them to a hot set, a tenth of them long."""
    source, moment, found = random.Random(seed), 0.0, list[Write]()
    while True:
        moment += source.expovariate(1 / every)
        if moment > hours * 3600:
            return found
        where = source.random()
        block = int(hot * source.random() ** 3) if where < 0.5 else source.randrange(size // BLOCK - 200)
        length = source.choice((512, 4096, 65536, 200_000)) if where < 0.9 else source.choice((1 << 20, 12 << 20))
        found.append((round(moment, 3), block * BLOCK + source.choice((0, 4096)), length))


def file(path: Path, rows: list[Write], header: bool = True) -> Path:
    text = "seconds,offset,length\n" if header else ""
    path.write_text(text + "".join(f"{moment},{offset},{length}\n" for moment, offset, length in rows))
    return path
