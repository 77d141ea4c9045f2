"""Figures: ours beside a peer's, medians of one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """``ratio``: ours to the peer's, of the medians; ``runs``: how many measurements each median is of."""

    name: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    unit: str
    runs: int


def of(name: str, ours: Sequence[float], peer: Sequence[float], peer_name: str, unit: str) -> Figure:
    mine, theirs = statistics.median(ours), statistics.median(peer)
    digits = None if unit == "bytes" else 3
    return Figure(
        name=name,
        ours=round(mine, digits),
        peer=round(theirs, digits),
        peer_name=peer_name,
        ratio=round(mine / theirs, 4),
        unit=unit,
        runs=min(len(ours), len(peer)),
    )
