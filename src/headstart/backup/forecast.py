"""What is left at the scheduled time: residue, window, scratch and spool space, with a range.

What the guest writes after the last rotation is residue, and what there was no time for. How much that is, rounds of
about this length have told (``learning.dirtied_within``); how far such a figure was off, past completions have: the
range holds four in five of them (split conformal prediction: Lei et al., "Distribution-Free Predictive Inference for
Regression", 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headstart import units
from headstart.backup import agenda, learning, selection
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.backup.selection import Situation
from headstart.blocks import Blocks

#: Of the outcomes, so much lies below the range, and above it.
TAIL = 0.1
#: As if there had been these completions, before there are enough of one's own: left for each block expected. One in
#: five is a day on which the guest was busy until the end, so that nothing was copied.
BEFORE = (0.15, 0.4, 0.8, 1.5, 20.0)
#: Freezing, the point in time, letting go: seconds of a window in which nothing is read.
WINDOW_SECONDS = 0.2
#: Copying may have to wait for the guest: of the time left so much is counted upon.
USABLE = 0.8


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Range:
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def plus(self, other: Range) -> Range:
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Disk:
    """What is known of one disk at a moment. ``count``: of all its blocks, infinite where its size is not known."""

    heat: Heat
    learned: Learned
    remaining: Blocks
    block_size: int = units.BLOCK_SIZE
    count: float = math.inf


@dataclass(frozen=True, slots=True)
class Forecast:
    """At the scheduled time. Bytes, and seconds of the window. ``reasons``: why it will not fit; empty if it will."""

    residue: Range
    window: Range
    scratch: Range
    spool: Range
    reasons: tuple[str, ...] = ()


def forecast(
    disks: Iterable[Disk],
    situation: Situation,
    *,
    audited: int = 0,
    read_rate: float | None = None,
    scratch_free: int | None = None,
    spool_free: int | None = None,
) -> Forecast:
    """Of a VM. ``audited``: bytes that are compared in the window as well; ``read_rate``: at which that and residue are
    read, bytes a second; ``*_free``: bytes in these places.

    It fits if the high end of the range does."""
    rate = read_rate or situation.rate or selection.RATE
    residue = written = Range(0.0, 0.0, 0.0)
    known = list(disks)
    for disk in known:
        residue = residue.plus(_residue(disk, situation).times(disk.block_size))
    window = Range(
        *(WINDOW_SECONDS + (value + audited) / rate for value in (residue.low, residue.likely, residue.high))
    )
    for disk in known:
        found = learning.dirtied_within(disk.learned, window.likely) or 0.0
        written = written.plus(Range(0.0, found, found).times(disk.block_size))
    # Only what is residue is protected, and a block is copied aside once.
    scratch = Range(0.0, min(residue.likely, written.likely), residue.high)
    spool = residue
    places = (("scratch", scratch, scratch_free), ("spool", spool, spool_free))
    reasons = tuple(
        _short(name, wanted, free) for name, wanted, free in places if free is not None and wanted.high > free
    )
    return Forecast(residue, window, scratch, spool, reasons)


def expected(disk: Disk, situation: Situation) -> float | None:
    """Blocks of residue, before past completions correct it: what ``learning.completed`` wants to be told. None: the
    guest's writes are not known yet."""
    everything = _everything(disk, situation)
    left = situation.left
    if left is None:
        return everything
    last = min(left, agenda.ROTATION + agenda.MARGIN + agenda.LEAST)
    written = learning.dirtied_within(disk.learned, last)
    return None if written is None else min(everything, written + _untimely(disk, situation))


def _everything(disk: Disk, situation: Situation) -> float:
    """Blocks: what remains and what will be written, if nothing is copied any more."""
    coming = learning.dirtied_within(disk.learned, situation.left) if situation.left else None
    return min(len(disk.remaining) + (coming or 0.0), disk.count)


def _untimely(disk: Disk, situation: Situation) -> float:
    """Blocks, of everything, that there is no time for."""
    rate = max(situation.rate or selection.RATE, 1.0) / disk.block_size
    return max(0.0, _everything(disk, situation) - rate * (situation.left or 0.0) * USABLE)


def _residue(disk: Disk, situation: Situation) -> Range:
    """Blocks."""
    guess = expected(disk, situation)
    if guess is None:
        guess = _untimely(disk, situation)
    factors = sorted((*BEFORE, *disk.learned.outcomes))
    low, middle, high = (_quantile(factors, share) for share in (TAIL, 0.5, 1 - TAIL))
    # One more block on both sides: a share of nothing says nothing.
    most = high * (guess + 1)
    if situation.rank is not None and situation.rank > selection.BUSY:
        # It may stay as busy as it is, and halt us.
        most = max(most, _everything(disk, situation))
    ends = (max(0.0, low * (guess + 1) - 1), max(0.0, middle * (guess + 1) - 1), most)
    return Range(*(min(end, disk.count) for end in ends))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """With one more of the same kind to come: the ranks are those of n + 1."""
    rank = math.ceil(share * (len(ordered) + 1)) if share > 0.5 else math.floor(share * (len(ordered) + 1))
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def _short(name: str, wanted: Range, free: int) -> str:
    need, there = units.format_bytes(math.ceil(wanted.high)), units.format_bytes(free)
    return f"up to {need} of {name} space may be needed, and {there} are free"
