"""Copying in virtual time: how far a round comes, at a bandwidth, and with a governor that watches the VM's load.

The daemon asks the governor twice a second. Where nothing changes longer steps come to the same: the averages are at
what the load is, the governor's pace stands, and a step is short against the time that is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from headstart import units
from headstart.blocks import Blocks
from headstart.load import governor as governors
from headstart.load.governor import Demand, Governor, Marks, Reading, State
from headstart.load.throttle import LOOK_SECONDS
from headstart.load.usual import STEP_SECONDS
from headstart.simulation.load import Load

#: Steps of the governor where nothing changes: at most so long, and so large a share of the time left.
LONGEST, SHARE = 30.0, 0.02
#: While the average over a minute is still under way.
SLOWLY = 2.0
#: An average that is so close to the load has arrived; a rate that differs less stands still.
CLOSE, STILL = 0.005, 0.01


@dataclass(frozen=True, slots=True)
class Portion:
    """Blocks that were read from ``begin`` on, evenly, for so many ``seconds``."""

    begin: float
    seconds: float
    blocks: Blocks


class Copier(Protocol):
    def copy(self, wanted: Blocks, begin: float, until: float, deadline: float) -> Iterator[Portion]:
        """Ascending, from ``begin`` until all are copied or ``until``. Each call begins where the last one ended, or
        later."""
        ...


class Full:
    """At the bandwidth, whatever the load."""

    def __init__(self, load: Load, bandwidth: float, block_bytes: int = units.BLOCK_SIZE) -> None:
        self._load = load
        self._bandwidth = bandwidth
        self._block_bytes = block_bytes

    def copy(self, wanted: Blocks, begin: float, until: float, deadline: float) -> Iterator[Portion]:
        rest = _Rest(wanted, self._block_bytes)
        now = begin
        while rest and now < until:
            portion = rest.take(now, min(until, self._load.next_change(now)) - now, self._bandwidth)
            now += portion.seconds
            yield portion


class Governed:
    """As the governor says."""

    def __init__(self, load: Load, bandwidth: float, block_bytes: int = units.BLOCK_SIZE) -> None:
        self._load = load
        self._bandwidth = bandwidth
        self._block_bytes = block_bytes
        self._governor = Governor()
        self._marks = (-1, Marks())

    def copy(self, wanted: Blocks, begin: float, until: float, deadline: float) -> Iterator[Portion]:
        rest = _Rest(wanted, self._block_bytes)
        now, step = begin, LOOK_SECONDS
        while rest and now < until:
            self._catch_up(now, deadline)
            before = self._governor
            self._step(now, self._load.at(now), Demand(len(rest) * self._block_bytes, deadline - now))
            step = self._longer(step, before, now, deadline)
            length = min(step, until - now, self._load.next_change(now) - now)
            if self._governor.state is State.HALTED:
                now += length
                continue
            portion = rest.take(now, length, min(self._governor.rate, self._bandwidth))
            now += portion.seconds
            if portion.blocks:
                yield portion

    def _catch_up(self, moment: float, deadline: float) -> None:
        """Since the last step the load was what it was, not what it is now."""
        while (last := self._governor.moment) is not None and last < moment:
            change = self._load.next_change(last)
            if change > moment:
                return
            self._step(change, self._load.at(last), Demand(0, deadline - change))

    def _step(self, moment: float, load: float, demand: Demand) -> None:
        slot = int(moment // STEP_SECONDS)
        if slot != self._marks[0]:
            self._marks = (slot, governors.marks_of(self._load.usual(moment)))
        self._governor = governors.step(self._governor, Reading(moment, load), demand, self._marks[1])

    def _longer(self, step: float, before: Governor, now: float, deadline: float) -> float:
        after = self._governor
        load = self._load.at(now)
        short, long = (math.isclose(each.value or 0.0, load, abs_tol=CLOSE) for each in (after.short, after.long))
        rates = [min(each.rate, self._bandwidth) for each in (before, after)]
        if not short or before.state is not after.state or not math.isclose(*rates, rel_tol=STILL):
            return LOOK_SECONDS
        return min(step * 2, LONGEST if long else SLOWLY, max(LOOK_SECONDS, SHARE * (deadline - now)))


class _Rest:
    """What is still to be copied."""

    def __init__(self, wanted: Blocks, block_bytes: int) -> None:
        self._wanted = wanted
        self._block_bytes = block_bytes
        self._position = 0
        self._begun = 0.0

    def __len__(self) -> int:
        return len(self._wanted) - self._position

    def take(self, now: float, seconds: float, rate: float) -> Portion:
        """What comes through in so many seconds, or all in less. A block that was begun goes on later."""
        room = self._begun + rate * seconds / self._block_bytes
        count = min(len(self), int(room + 1e-9))
        self._begun = room - count
        if count == len(self):
            seconds -= max(0.0, room - count) * self._block_bytes / rate
        chosen = self._wanted[self._position : self._position + count]
        self._position += count
        return Portion(now, seconds, chosen)
