"""Scores copies by replaying a trace, in another way than the simulator: block by block, with dictionaries."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence

BLOCK = 65536

Write = tuple[float, int, int]
#: Seconds, offset, length.
Copied = tuple[float, int, int]


def blocks_of(offset: int, length: int) -> range:
    return range(offset // BLOCK, -(-(offset + length) // BLOCK))


def residues(
    writes: Iterable[Write],
    copies: Iterable[Copied],
    deadlines: Sequence[float],
    rotations: Sequence[float] | None = None,
) -> list[int]:
    """Blocks left at each deadline. A copy holds if no write to its block comes after it and before the deadline.

    With ``rotations``: after the rotation that came before the copy, which is all that a policy can know."""
    written: dict[int, list[float]] = defaultdict(list)
    for moment, offset, length in writes:
        for block in blocks_of(offset, length):
            written[block].append(moment)
    copied: dict[int, list[float]] = defaultdict(list)
    for moment, offset, length in copies:
        since = moment if rotations is None else rotations[bisect.bisect_right(rotations, moment) - 1]
        for block in blocks_of(offset, length):
            copied[block].append(since)
    found, begin = [], 0.0
    for deadline in deadlines:
        # The last one also holds what was written at the very end.
        last = deadline == deadlines[-1]
        found.append(sum(_is_left(written[block], copied[block], begin, deadline, last) for block in written))
        begin = deadline
    return found


def _is_left(written: list[float], copied: list[float], begin: float, deadline: float, last: bool) -> bool:
    inside = [moment for moment in written if begin <= moment < deadline or (last and moment == deadline)]
    if not inside:
        return False
    return not any(begin <= moment < deadline and moment > max(inside) for moment in copied)
