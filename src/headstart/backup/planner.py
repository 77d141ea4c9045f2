"""The planner of one VM: when the next round begins, what it copies, what is to be expected; and what it learns.

It has neither clock nor I/O: the daemon and the simulator tell it the same things, and do what it says. Moments are
seconds of a clock that outlives a restart; ``deadline`` None: there is none.

::

    next_round  ->  choose (what a round reported)  ->  copied, until ``cut``  ->  next_round ...  ->  completed
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headstart import units
from headstart.backup import agenda, forecast, learning, selection
from headstart.backup import heat as heats
from headstart.backup.forecast import Disk, Forecast
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.backup.selection import Situation
from headstart.blocks import Blocks

#: Of the rate seen before, so much is believed in: what a small or paced round shows is not the most that is possible.
REMEMBERED = 0.95
#: Rounds towards a deadline are about so far apart: what one of them reports.
LAST_SECONDS = 2 * agenda.LEAST
#: A clock that is set back by less is one that is kept right.
CLOCK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reported:
    """What a round told of one disk: blocks that its marks ``recorded``, ``wasted`` those that had been copied, and
    those that are ``remaining``. ``count``: of all its blocks, infinite where its size is not known."""

    recorded: Blocks
    wasted: Blocks
    remaining: Blocks
    count: float = math.inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a completion, for one disk, in blocks: read in it, and taken from the draft."""

    residue: int
    precopied: int


@dataclass(slots=True)
class Known:
    """Of one disk. ``later``: left out by the newest selection; ``drafted``: blocks in the draft when the newest round
    ended; ``expected``: the residue, in blocks, as it was expected in the middle between two backups; ``count``: as in
    ``Reported``."""

    heat: Heat = field(default_factory=Heat)
    learned: Learned = field(default_factory=Learned)
    later: Blocks = field(default_factory=Blocks)
    remaining: Blocks = field(default_factory=Blocks)
    drafted: int = 0
    expected: float | None = None
    count: float = math.inf


@dataclass(slots=True)
class Planner:
    """``interval`` and ``begin_before`` in seconds, as in ``agenda``; they may be changed at any time. ``rank``: see
    ``Situation``. ``rate``: bytes a second, as copied lately."""

    block_size: int = units.BLOCK_SIZE
    interval: float = 900.0
    begin_before: float | None = None
    waste: float = learning.WASTE
    disks: dict[str, Known] = field(default_factory=dict)
    rate: float | None = None
    #: Of the newest round since the last backup: when it began and ended, and whether there was more to do.
    rotated: float | None = None
    ended: float | None = None
    unfinished: bool = False
    #: How many rounds in turn were to copy something, and copied nothing.
    barren: int = 0
    #: Bytes that the newest round was to copy, and did not come to.
    missed: int = 0
    #: When the last backup was complete.
    since: float | None = None
    #: Why the newest round copies what it copies.
    reasons: tuple[str, ...] = ()

    def next_round(self, now: float, deadline: float | None) -> float | None:
        """When to begin one, ``now`` or later; None: not before the deadline."""
        self._mind_clock(now)
        wait = self.interval
        if self.ended is not None and self.rotated is not None:
            # A round that was to copy and could not is not tried again all the time.
            soon = min(wait, agenda.LEAST * 2 ** min(self.barren, 16))
            wait = soon if self.unfinished else max(agenda.LEAST, self.rotated + wait - self.ended)
        seconds = agenda.duration(self.deferred + self.missed + self.coming(LAST_SECONDS), self.rate)
        if deadline is not None:
            seconds = min(seconds, max(0.0, deadline - now) / 2)
        return agenda.next_round(
            now, deadline, self.ended, interval=wait, begin_before=self.begin_before, seconds=seconds
        )

    def _mind_clock(self, now: float) -> None:
        """It may have been put back."""
        if self.ended is not None and self.ended > now:
            self.ended = self.rotated = now
        if self.since is not None and self.since > now:
            self.since = None
        for known in self.disks.values():
            if known.heat.moment is not None and known.heat.moment > now + CLOCK_SECONDS:
                # What is known of ages is of a clock that was wrong.
                known.heat = Heat()

    def cut(self, now: float, deadline: float | None) -> float:
        """When a round that begins now ends at the latest: a newer one knows better what to copy."""
        end = agenda.next_round(now, deadline, now, interval=self.interval)
        if end is not None:
            return end
        return now + self.interval if deadline is None else deadline

    def choose(
        self, now: float, deadline: float | None, reported: Mapping[str, Reported], rank: float | None, room: int
    ) -> dict[str, Blocks]:
        """What a round copies, by disk. ``room``: bytes for what is remembered of each disk."""
        self._mind_clock(now)
        self.rotated, self.unfinished, self.missed = now, False, 0
        for name in [name for name in self.disks if name not in reported]:
            del self.disks[name]
        for name, told in reported.items():
            self._learn(self.disks.setdefault(name, Known()), told, now, room)
        situation = self.situation(now, deadline, rank)
        chosen: dict[str, Blocks] = {}
        reasons: dict[str, None] = {}
        for name, known in self.disks.items():
            if known.expected is None or self._early(now, deadline):
                known.expected = forecast.expected(self._disk(known), situation)
            found = selection.select(known.remaining, known.heat, known.learned, situation, self.block_size)
            chosen[name], known.later = found.now, found.later
            self.unfinished = self.unfinished or found.unfinished
            reasons[found.reason] = None
        self.reasons = tuple(reasons)
        return chosen

    def _early(self, now: float, deadline: float | None) -> bool:
        """In the first half of the time between two backups: what is expected after it is held against what comes."""
        return deadline is None or self.since is None or deadline - now > (deadline - self.since) / 2

    def _learn(self, known: Known, told: Reported, now: float, room: int) -> None:
        known.learned = learning.seen(known.learned, known.heat, told.recorded, told.wasted, now)
        known.heat = heats.fitted(heats.seen(known.heat, told.recorded, now), room)
        known.remaining, known.count = told.remaining, told.count
        known.drafted = max(0, known.drafted - len(told.wasted))

    def situation(self, now: float, deadline: float | None, rank: float | None) -> Situation:
        return Situation(now, deadline, self.remaining, self.rate, rank)

    @property
    def remaining(self) -> int:
        """Bytes, as of the newest round's beginning."""
        return sum(len(known.remaining) for known in list(self.disks.values())) * self.block_size

    @property
    def deferred(self) -> int:
        """Bytes that the newest round left out."""
        return sum(len(known.later) for known in list(self.disks.values())) * self.block_size

    def coming(self, seconds: float) -> int:
        """Bytes that a round of this length reports, as expected."""
        found = (learning.dirtied_within(known.learned, seconds) for known in self.disks.values())
        return round(sum(each or 0.0 for each in found)) * self.block_size

    def copied(
        self,
        now: float,
        counts: Mapping[str, int],
        chosen: Mapping[str, Blocks],
        seconds: float,
        read: int | None = None,
    ) -> None:
        """A round is over: so many blocks of each disk were copied, which took so many seconds. ``read``: how many of
        them are not zeroes, where that is known: holes are copied without being read, and a round that was mostly holes
        tells nothing of the rate."""
        self.ended = now
        left = sum(max(0, len(found) - counts.get(name, 0)) for name, found in chosen.items())
        self.missed, self.unfinished = left * self.block_size, self.unfinished or left > 0
        for name, known in self.disks.items():
            count = counts.get(name, 0)
            known.learned = learning.copied(known.learned, count)
            known.drafted += count
        total = sum(counts.values())
        self.barren = self.barren + 1 if left and not total else 0
        read = total if read is None else read
        if read and 2 * read >= total and seconds > 0:
            self.rate = max(read * self.block_size / seconds, REMEMBERED * (self.rate or 0.0))

    def completed(self, now: float, outcomes: Mapping[str, Outcome]) -> None:
        """A backup is complete. What was copied and is not in it was copied in vain."""
        self.since = now
        for name, outcome in outcomes.items():
            known = self.disks.setdefault(name, Known())
            vain = max(0, known.drafted - outcome.precopied)
            learned = replace(known.learned, wasted=known.learned.wasted + vain)
            expected = float(outcome.residue) if known.expected is None else known.expected
            self.disks[name] = Known(
                heats.completed(known.heat), learning.completed(learned, outcome.residue, expected, self.waste)
            )
        self.rotated = self.ended = None
        self.unfinished, self.missed = False, 0

    def foresee(
        self,
        now: float,
        deadline: float | None,
        rank: float | None,
        *,
        audited: int = 0,
        read_rate: float | None = None,
        free: int | None,
    ) -> Forecast:
        """``audited``: bytes that the backup compares; ``read_rate``: of a window, see ``forecast``; ``free``: bytes
        for scratch and spool."""
        disks = [self._disk(known) for known in self.disks.values()]
        situation = self.situation(now, deadline, rank)
        return forecast.forecast(
            disks, situation, audited=audited, read_rate=read_rate, scratch_free=free, spool_free=free
        )

    def _disk(self, known: Known) -> Disk:
        return Disk(known.heat, known.learned, known.remaining, self.block_size, known.count)
