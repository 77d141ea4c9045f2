"""What is copied ahead when: ours, two simple ones, one that does nothing, and one that knows the future."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headstart import blocks, units
from headstart.backup import heat, learning
from headstart.backup.forecast import Forecast
from headstart.backup.planner import Outcome, Planner, Reported
from headstart.blocks import Blocks
from headstart.simulation.world import World

#: A round after the last one, far from the deadline: what a policy says if it says nothing.
INTERVAL = 900.0
#: When forecasts are made: shares of the time from one deadline to the next.
FORESEEN = (0.5, 1 / 24)
#: Our memory of one disk: a fourth of what a host has.
HEAT_BYTES = heat.HOST_BYTES // 4
#: A trace is of one disk.
_DISK = "disk"


@dataclass(frozen=True, slots=True)
class Seen:
    """A forecast, ``before`` seconds before the deadline."""

    before: float
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A forecast, and the bytes that there were."""

    before: float
    forecast: Forecast
    residue: int


@dataclass(frozen=True, slots=True)
class Round:
    """One rotation at ``begin``, which told of ``dirty`` blocks. ``remaining``: changed and not copied, with these.
    ``draft``: what was copied until now, also what is dirty by now."""

    begin: float
    deadline: float
    dirty: Blocks
    remaining: Blocks
    draft: Blocks


class Policy(Protocol):
    """Of one disk. Moments are virtual."""

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        """When the next round begins, ``now`` or later; None: none before the deadline. ``ended``: the last one did."""
        ...

    def chosen(self, this: Round) -> Blocks:
        """What is copied."""
        ...

    def cut(self, this: Round) -> float:
        """When copying is ended, done or not."""
        ...

    def copied(self, now: float, chosen: Blocks, count: int, seconds: float) -> None:
        """So many of the chosen blocks were copied until now, in so many seconds of reading."""
        ...

    def completed(self, last: Round, residue: int) -> None:
        """At the deadline; ``residue`` blocks were left."""
        ...


class Nothing:
    """A plain incremental backup."""

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        return None

    def chosen(self, this: Round) -> Blocks:
        return this.remaining

    def cut(self, this: Round) -> float:
        return this.deadline

    def copied(self, now: float, chosen: Blocks, count: int, seconds: float) -> None:
        return None

    def completed(self, last: Round, residue: int) -> None:
        return None


class Immediate(Nothing):
    """All that is dirty, every so many seconds, counted from the deadline: the last round has as long as the others."""

    def __init__(self, every: float) -> None:
        self._every = every

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        number = int((deadline - now) / self._every + 1e-6)
        return max(now, deadline - number * self._every) if number else None


class OnePass(Nothing):
    """All that is dirty, once, so many seconds before the deadline."""

    def __init__(self, before: float) -> None:
        self._before = before

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        return max(now, deadline - self._before) if ended is None else None


class HeadStart(Nothing):
    """What the daemon does, by the same planner."""

    def __init__(self, world: World, interval: float = INTERVAL, waste: float = learning.WASTE) -> None:
        self._world = world
        self._planner = Planner(world.block_bytes, interval, waste=waste)
        self._count = blocks.count_of(world.trace.disk_size, units.BLOCK_SIZE)
        self._seen: list[Seen] = []
        #: Forecasts that were made so long before each deadline as ``FORESEEN`` says.
        self.forecasts: list[Foreseen] = []

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        return self._planner.next_round(now, deadline)

    def chosen(self, this: Round) -> Blocks:
        told = Reported(this.dirty, this.draft & this.dirty, this.remaining, self._count)
        found = self._planner.choose(this.begin, this.deadline, {_DISK: told}, self._rank(this), HEAT_BYTES)
        self._foresee(this)
        return found[_DISK]

    def _rank(self, this: Round) -> float | None:
        usual = self._world.load.usual(this.begin)
        return usual.rank(self._world.load.at(this.begin)) if usual.known else None

    def cut(self, this: Round) -> float:
        return self._planner.cut(this.begin, this.deadline)

    def copied(self, now: float, chosen: Blocks, count: int, seconds: float) -> None:
        self._planner.copied(now, {_DISK: count}, {_DISK: chosen}, seconds)

    def completed(self, last: Round, residue: int) -> None:
        self._planner.completed(last.begin, {_DISK: Outcome(residue, len(_used(last)))})
        self.forecasts += [
            Foreseen(each.before, each.forecast, residue * self._world.block_bytes) for each in self._seen
        ]
        self._seen = []

    def _foresee(self, this: Round) -> None:
        left = this.deadline - this.begin
        if len(self._seen) < len(FORESEEN) and left <= FORESEEN[len(self._seen)] * self._world.period:
            made = self._planner.foresee(
                this.begin, this.deadline, self._rank(this), read_rate=self._world.bandwidth, free=None
            )
            self._seen.append(Seen(left, made))


def _used(last: Round) -> Blocks:
    """What of the draft is in the backup."""
    return last.draft - last.dirty


class Oracle(Nothing):
    """Copies what is not written again before the deadline, and only that, in the rounds that another policy had."""

    def __init__(self, world: World, rotations: Sequence[float]) -> None:
        self._world = world
        self._rotations = rotations
        #: By rotation, what is written between it and the deadline. Filled backwards from each deadline.
        self._written: dict[float, Blocks] = {}

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        index = bisect.bisect_left(self._rotations, now)
        if index == len(self._rotations) or self._rotations[index] >= deadline:
            return None
        return self._rotations[index]

    def chosen(self, this: Round) -> Blocks:
        if this.begin not in self._written:
            self._look_ahead(this.begin, this.deadline)
        return this.remaining - self._written.pop(this.begin)

    def cut(self, this: Round) -> float:
        index = bisect.bisect_right(self._rotations, this.begin)
        after = self._rotations[index] if index < len(self._rotations) else this.deadline
        return min(after, this.deadline)

    def _look_ahead(self, begin: float, deadline: float) -> None:
        index, end = (bisect.bisect_left(self._rotations, moment) for moment in (begin, deadline))
        written, until = Blocks(), deadline
        for moment in reversed(self._rotations[index:end]):
            written = written | self._world.trace.dirty(moment, until)
            self._written[moment] = written
            until = moment
