"""Governor, throttle and sensors in a closed loop with a disk that they load themselves: it must not oscillate.

The disk carries ``CAPACITY`` bytes a second. Sensors see the kernel's counters of it, in which our reads are; the part
that is ours is taken out as it is in the daemon (``load.machine``). Without that the same loop stops itself again and
again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from headstart.load import governor as governors
from headstart.load import machine, signals
from headstart.load.disk import Activity
from headstart.load.governor import Demand, Governor, Marks, Reading, State
from headstart.load.machine import Cpu, Own, Sample
from headstart.units import MIB

CAPACITY = 200.0 * MIB
#: CPU seconds of ours for each byte that we read, on two CPUs.
CPU_PER_BYTE = 1.0 / (150 * MIB)
CPUS = 2
TICK = 0.5
MARKS = Marks(0.25, 0.7)
SECONDS = 600


@dataclass
class Plant:
    """What the guest asks for, as shares of disk and CPU; and us beside it."""

    guest: Callable[[float], float]
    noise: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        self.now = 0.0
        self.cpu = self.total = 0.0
        self.disk = Activity(0, 0, 0, 0, 0, 0)
        self.own = Own()
        self._random = random.Random(self.seed)

    def run(self, rate: float) -> None:
        """One tick; the guest gets what it wants before us."""
        guest = min(1.0, max(0.0, self.guest(self.now) + self._random.gauss(0, self.noise)))
        ours = min(rate * TICK, (1 - guest) * CAPACITY * TICK)
        busy, theirs = ours / CAPACITY, guest * TICK
        spent = min(ours * CPU_PER_BYTE, CPUS * TICK * (1 - guest / 2))
        old = self.disk
        self.disk = Activity(
            old.busy + min(TICK, busy + theirs),
            old.reading + busy,
            old.writing + theirs,
            old.flushing,
            old.read_bytes + ours,
            old.written_bytes + theirs * CAPACITY,
        )
        self.cpu += min(CPUS * TICK, spent + guest * TICK)
        self.total += CPUS * TICK
        self.own = Own(self.own.cpu_seconds + spent, self.own.read_bytes + ours)
        self.now += TICK

    def sample(self) -> Sample:
        return Sample(self.now, Cpu(self.cpu, self.total), {"vda": self.disk}, None, {})


@dataclass(frozen=True)
class Course:
    changes: int
    copied: float
    states: dict[State, int]
    reads_after_bursts: float


def course(plant: Plant, *, subtract: bool, seconds_left: float | None = 8 * 3600.0) -> Course:
    governor, changes, copied = Governor(), 0, 0.0
    states = dict.fromkeys(State, 0)
    before, own = plant.sample(), plant.own
    late = 0.0
    high_since: float | None = None
    for _ in range(int(SECONDS / TICK)):
        at = plant.own.read_bytes
        plant.run(governor.rate)
        copied += plant.own.read_bytes - at
        high = plant.guest(plant.now - TICK) >= MARKS.high
        high_since = None if not high else high_since if high_since is not None else plant.now - TICK
        if high_since is not None and plant.now - TICK - high_since > 2.0:
            late += plant.own.read_bytes - at
        after = plant.sample()
        ours = Own(plant.own.cpu_seconds - own.cpu_seconds, plant.own.read_bytes - own.read_bytes)
        load, what = signals.load(machine.signals(before, after, ours if subtract else Own()))
        before, own = after, plant.own
        demand = Demand(20 << 30, seconds_left)
        stepped = governors.step(governor, Reading(plant.now, load, what), demand, MARKS)
        changes += stepped.state is not governor.state
        states[stepped.state] += 1
        governor = stepped
    return Course(changes, copied, states, late)


def constant(share: float) -> Callable[[float], float]:
    return lambda now: share


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_an_idle_machine_is_copied_at_full_speed_all_the_time(share: float, noise: float) -> None:
    done = course(Plant(constant(share), noise), subtract=True)
    assert done.changes <= 3, done
    assert done.states[State.IDLE] > 0.97 * SECONDS / TICK
    assert done.copied > 0.9 * (1 - share - noise) * CAPACITY * SECONDS


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_without_taking_our_part_out_it_oscillates(share: float) -> None:
    """So that the test above can fail."""
    done = course(Plant(constant(share)), subtract=False)
    assert done.changes > 20, done


@pytest.mark.parametrize("share", [0.35, 0.5, 0.6])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_busy_machine_is_copied_as_fast_as_the_deadline_needs(share: float, noise: float) -> None:
    done = course(Plant(constant(share), noise), subtract=True, seconds_left=3600.0)
    needed = 1.2 * (20 << 30) / 3600
    assert done.changes <= 3, done
    assert done.states[State.PACED] > 0.97 * SECONDS / TICK
    assert done.copied == pytest.approx(needed * SECONDS, rel=0.1)


def test_nothing_is_read_while_it_is_needed() -> None:
    done = course(Plant(constant(0.9)), subtract=True)
    assert done.copied < 0.5 * CAPACITY and done.states[State.HALTED] > 0.97 * SECONDS / TICK


@pytest.mark.parametrize("period", [20.0, 120.0, 300.0])
def test_bursts_are_left_alone_within_two_seconds_and_long_pauses_used(period: float) -> None:
    """Half of the time all is wanted, half of the time nothing. A pause of less than a minute is no reason to go at
    full speed."""
    burst: Callable[[float], float] = lambda now: 0.95 if now % period < period / 2 else 0.02  # noqa: E731
    done = course(Plant(burst), subtract=True)
    assert done.reads_after_bursts == 0
    assert (done.states[State.IDLE] > 0) is (period > 200)
    if period > 200:
        assert done.copied > 0.1 * CAPACITY * SECONDS


@pytest.mark.parametrize("share", [MARKS.low, (MARKS.low + MARKS.high) / 2])
def test_a_load_right_at_a_mark_does_not_change_the_state_all_the_time(share: float) -> None:
    done = course(Plant(constant(share), 0.05), subtract=True)
    assert done.changes < 40, done
