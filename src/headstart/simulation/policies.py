"""What is copied ahead when: ours, two simple ones, one that does nothing, and one that knows the future."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headstart.backup import agenda, choice, forecast, learning
from headstart.backup import heat as heats
from headstart.backup.agenda import LEAST
from headstart.backup.choice import Situation
from headstart.backup.forecast import Disk, Forecast
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.blocks import Blocks
from headstart.simulation.world import World

#: A rate that was reached counts for a while, less and less: held back by the load it is not what can be reached.
REMEMBERED = 0.95
#: A round after the last one, far from the deadline: what a policy says if it says nothing.
INTERVAL = 900.0
#: When forecasts are made: shares of the time from one deadline to the next.
FORESEEN = (0.5, 1 / 24)
#: Our memory of one disk: a fourth of what a host has.
HEAT_BYTES = heats.HOST_BYTES // 4


@dataclass(frozen=True, slots=True)
class Seen:
    """A forecast, ``before`` seconds before the deadline, and what it began with."""

    before: float
    forecast: Forecast
    expected: float


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

    def copied(self, chosen: Blocks, count: int, seconds: float) -> None:
        """So many of the chosen blocks were copied, in so many seconds of reading."""
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

    def copied(self, chosen: Blocks, count: int, seconds: float) -> None:
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
    """What the daemon does."""

    def __init__(self, world: World, interval: float = INTERVAL, waste: float = learning.WASTE) -> None:
        self._world = world
        self._interval = interval
        self._waste = waste
        self._heat = Heat()
        self._learned = Learned()
        self._rate: float | None = None
        self._rotated = 0.0
        self._unfinished = False
        self._later = 0
        self._seen: list[Seen] = []
        #: Forecasts that were made so long before each deadline as ``FORESEEN`` says.
        self.forecasts: list[Foreseen] = []

    def next_round(self, now: float, deadline: float, ended: float | None) -> float | None:
        interval = self._interval
        if ended is not None:
            interval = LEAST if self._unfinished else max(LEAST, self._rotated + interval - ended)
        last = self._later + (learning.dirtied_within(self._learned, 2 * LEAST) or 0.0)
        seconds = agenda.duration(round(last) * self._world.block_bytes, self._rate)
        return agenda.next_round(now, deadline, ended, interval=interval, seconds=min(seconds, (deadline - now) / 2))

    def chosen(self, this: Round) -> Blocks:
        self._rotated = this.begin
        self._learn(this)
        situation = self._situation(this)
        self._foresee(this, situation)
        found = choice.choose(this.remaining, self._heat, self._learned, situation, self._world.block_bytes)
        self._later = len(found.later)
        self._unfinished = found.unfinished
        return found.now

    def cut(self, this: Round) -> float:
        """A new round knows better."""
        end = agenda.next_round(this.begin, this.deadline, this.begin, interval=self._interval)
        return this.deadline if end is None else end

    def copied(self, chosen: Blocks, count: int, seconds: float) -> None:
        self._learned = learning.copied(self._learned, count)
        self._unfinished = self._unfinished or count < len(chosen)
        self._later += len(chosen) - count
        if seconds > 0:
            self._rate = max(count * self._world.block_bytes / seconds, REMEMBERED * (self._rate or 0.0))

    def completed(self, last: Round, residue: int) -> None:
        self._learn(last)
        self._heat = heats.completed(self._heat)
        expected = self._seen[0].expected if self._seen else float(residue)
        self._learned = learning.completed(self._learned, residue, expected, self._waste)
        self.forecasts += [
            Foreseen(each.before, each.forecast, residue * self._world.block_bytes) for each in self._seen
        ]
        self._seen, self._later, self._unfinished = [], 0, False

    def _learn(self, this: Round) -> None:
        self._learned = learning.seen(self._learned, self._heat, this.dirty, this.draft, this.begin)
        self._heat = heats.fitted(heats.seen(self._heat, this.dirty, this.begin), HEAT_BYTES)

    def _situation(self, this: Round) -> Situation:
        usual = self._world.load.usual(this.begin)
        rank = usual.rank(self._world.load.at(this.begin)) if usual.known else None
        remaining = len(this.remaining) * self._world.block_bytes
        return Situation(this.begin, this.deadline, remaining, self._rate, rank)

    def _foresee(self, this: Round, situation: Situation) -> None:
        left = this.deadline - this.begin
        if len(self._seen) < len(FORESEEN) and left <= FORESEEN[len(self._seen)] * self._world.period:
            disk = Disk(self._heat, self._learned, this.remaining, self._world.block_bytes)
            made = forecast.forecast([disk], situation, read_rate=self._world.bandwidth)
            self._seen.append(Seen(left, made, forecast.expected(disk, situation)))


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
