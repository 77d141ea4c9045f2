"""The governor, step by step: when it halts, when it begins again, how fast it goes."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.load import governor as governors
from headstart.load.governor import AHEAD, FULL_RATE, LEAST_RATE, START_RATE, Demand, Governor, Marks, Reading, State
from headstart.load.usual import STEP_SECONDS, Usual
from headstart.units import GIB, MIB

MARKS = Marks(0.25, 0.7)
NO_HURRY = Demand(GIB)
TICK = 0.5


def steps(
    loads: Iterable[float | None],
    demand: Demand = NO_HURRY,
    governor: Governor | None = None,
    latency: Callable[[float], float | None] = lambda moment: None,
    bound: float | None = None,
) -> Iterator[Governor]:
    """One every half second."""
    governor = governor or Governor()
    moment = 0.0 if governor.moment is None else governor.moment
    for load in loads:
        moment += TICK
        governor = governors.step(governor, Reading(moment, load, "cpu", latency(moment), bound), demand, MARKS)
        yield governor


def last(loads: Iterable[float | None], demand: Demand = NO_HURRY, governor: Governor | None = None) -> Governor:
    return list(steps(loads, demand, governor))[-1]


IDLE = last([0.0] * 600)


def test_before_the_first_step_nothing_is_copied() -> None:
    assert (Governor().state, Governor().rate) == (State.HALTED, 0.0)


@pytest.mark.parametrize(
    ("load", "state"),
    [
        (0.0, State.IDLE),
        (0.24, State.IDLE),
        (0.25, State.PACED),
        (0.5, State.PACED),
        (0.69, State.PACED),
        (0.7, State.HALTED),
        (1.0, State.HALTED),
        (None, State.PACED),
    ],
)
def test_the_load_decides(load: float | None, state: State) -> None:
    assert last([load]).state is state
    assert last([load] * 20).state is state


def test_it_halts_within_two_seconds_of_a_load() -> None:
    states = [each.state for each in steps([1.0] * 8, governor=IDLE)]
    assert State.HALTED in states[:4]
    assert last([1.0] * 8, governor=IDLE).rate == 0


def test_a_short_peak_does_not_halt_it() -> None:
    assert all(each.state is State.IDLE for each in steps([0.6, 0.0, 0.0, 0.6, 0.0], governor=IDLE))


def test_after_a_halt_it_waits_for_a_quiet_minute() -> None:
    halted = last([1.0] * 600, governor=IDLE)
    states = [each.state for each in steps([0.0] * 400, governor=halted)]
    begun = next(number for number, state in enumerate(states) if state is not State.HALTED) * TICK
    assert 20 < begun < 60
    assert states[-1] is State.IDLE
    assert all(state is not State.HALTED for state in states[int(begun / TICK) :])


def test_a_load_around_a_mark_does_not_change_the_state_all_the_time() -> None:
    for mark in (MARKS.low, MARKS.high):
        states = [each.state for each in steps([mark + 0.03, mark - 0.03] * 600, governor=IDLE)]
        changes = sum(before is not after for before, after in itertools.pairwise(states))
        assert changes <= 4, mark


def test_idle_it_doubles_every_two_seconds() -> None:
    rates = [each.rate for each in steps([0.0] * 21)]
    assert rates[0] == START_RATE
    assert rates[4] == pytest.approx(2 * START_RATE)
    assert rates[20] == pytest.approx(2**5 * START_RATE)


@pytest.mark.parametrize(
    ("remaining", "seconds", "rate"),
    [
        (GIB, None, LEAST_RATE),
        (GIB, 100_000.0, LEAST_RATE),
        (GIB, 100.0, AHEAD * GIB / 100),
        (0, 10.0, LEAST_RATE),
        (GIB, 0.0, AHEAD * GIB),
        (GIB, -5.0, AHEAD * GIB),
    ],
)
def test_paced_it_is_as_fast_as_the_deadline_needs(remaining: int, seconds: float | None, rate: float) -> None:
    demand = Demand(remaining, seconds)
    assert demand.rate == pytest.approx(rate)
    found = last([0.5] * 4000, demand)
    assert found.state is State.PACED
    assert found.rate == pytest.approx(rate)


@pytest.mark.parametrize("seconds", [180.0, 3600.0])
def test_paced_it_comes_to_its_end_before_the_deadline(seconds: float) -> None:
    """Not much before it: what is 20 % faster than needed is told anew at every step."""
    governor, remaining, moment = Governor(), float(2 * GIB), 0.0
    while remaining > 0 and moment < seconds:
        moment += TICK
        governor = governors.step(governor, Reading(moment, 0.5), Demand(int(remaining), seconds - moment), MARKS)
        remaining -= governor.rate * TICK
    assert remaining <= 0
    assert moment <= seconds


@pytest.mark.parametrize(
    ("limit", "state", "rate"),
    [(None, State.IDLE, FULL_RATE), (MIB, State.IDLE, MIB), (0.0, State.HALTED, 0.0), (1e15, State.IDLE, FULL_RATE)],
)
def test_the_policy_limits_it(limit: float | None, state: State, rate: float) -> None:
    found = last([0.0] * 100, Demand(GIB, None, limit))
    assert (found.state, found.rate) == (state, rate)


def test_it_grows_slowly_after_a_halt() -> None:
    found = last([0.0] * 500, governor=last([1.0] * 10, governor=IDLE))
    assert found.rate == FULL_RATE
    first = next(each for each in steps([0.0] * 500, governor=last([1.0] * 10, governor=IDLE)) if each.rate)
    assert first.rate <= 2 * START_RATE


def test_latency_above_its_bound_halves_the_pace_once_a_second() -> None:
    start = last([0.0] * 9)
    found = [each.rate for each in steps([0.0] * 6, governor=start, latency=lambda moment: 0.05, bound=0.01)]
    assert found[0] == pytest.approx(start.rate / 2)
    assert found[1] == found[0]
    assert found[2] == pytest.approx(start.rate / 4)


def test_it_never_comes_to_nothing_by_latency() -> None:
    found = list(steps([0.0] * 200, latency=lambda moment: 0.05, bound=0.01))[-1]
    assert found.rate == governors.SLOWEST
    assert "latency" in found.reason


def test_after_latency_it_does_not_double_any_more() -> None:
    suffered = list(steps([0.0] * 20, latency=lambda moment: 0.05, bound=0.01))[-1]
    rates = [each.rate for each in steps([0.0] * 3, governor=suffered)]
    assert rates[1] / rates[0] == pytest.approx(1 + governors.GROWTH * TICK)


def test_reasons_tell_the_sensor_and_the_mark() -> None:
    assert last([1.0]).reason == "cpu 1.00 above 0.70"
    assert "cpu 0.00 below" in IDLE.reason
    assert last([None]).reason == "no sensor tells the load"


@pytest.mark.parametrize(
    ("figures", "low", "high", "marks"),
    [
        ([], None, None, Marks()),
        ([0.0] * 100, None, None, Marks(0.10, 0.20)),
        ([1.0] * 100, None, None, Marks(0.85, 0.95)),
        ([0.3] * 60 + [0.6] * 40, None, None, Marks(0.3, 0.6)),
        ([0.4] * 100, None, None, Marks(0.4, 0.5)),
        ([0.3] * 60 + [0.6] * 40, 0.2, 0.9, Marks(0.2, 0.9)),
        ([0.3] * 60 + [0.6] * 40, None, 0.2, Marks(0.1, 0.2)),
        ([0.3] * 60 + [0.6] * 40, 0.8, None, Marks(0.8, 0.9)),
    ],
)
def test_marks(figures: list[float], low: float | None, high: float | None, marks: Marks) -> None:
    found = governors.marks_of(Usual.of(figures), low, high)
    assert [found.low, found.high] == pytest.approx([marks.low, marks.high])


@pytest.mark.parametrize(("usually", "spread"), [(0.05, 0.02), (0.16, 0.02), (0.25, 0.01), (0.2, 0.03), (0.8, 0.03)])
def test_a_steady_load_does_not_halt_itself_and_a_burst_does(usually: float, spread: float) -> None:
    """Its own history makes the marks. A look every two seconds: six hours to know it, an hour to look, a burst."""
    chance, tick = random.Random(1), 2.0
    loads = [min(1.0, max(0.0, chance.gauss(usually, spread))) for _ in range(7 * 1800)]
    each = int(STEP_SECONDS / tick)
    history = [statistics.fmean(loads[begin : begin + each]) for begin in range(0, 6 * 1800, each)]
    marks, governor, states = governors.marks_of(Usual.of(history)), Governor(), []
    for number, load in enumerate([*loads[6 * 1800 :], 1.0]):
        governor = governors.step(governor, Reading(number * tick, load), NO_HURRY, marks)
        states.append(governor.state)
    assert states[:-1].count(State.HALTED) < 0.02 * len(states)
    assert states[-1] is State.HALTED


readings = some.builds(
    Reading,
    moment=some.floats(0, 1e6),
    load=some.none() | some.floats(0, 1),
    latency=some.none() | some.floats(0, 1),
    bound=some.none() | some.floats(0, 1),
)
demands = some.builds(
    Demand,
    remaining=some.integers(0, 1 << 50),
    seconds=some.none() | some.floats(-10, 1e6),
    limit=some.none() | some.floats(0, 1e12),
)


@given(some.lists(some.tuples(readings, demands), min_size=1, max_size=30), some.floats(0, 0.9), some.floats(0.01, 1))
def test_whatever_comes_the_rate_can_be_held(told: list[tuple[Reading, Demand]], low: float, apart: float) -> None:
    governor, marks = Governor(), Marks(low, min(1.0, low + apart))
    for reading, demand in told:
        governor = governors.step(governor, reading, demand, marks)
        assert 0 <= governor.rate <= FULL_RATE
        assert (governor.rate == 0) == (governor.state is State.HALTED)
        assert demand.limit is None or governor.rate <= demand.limit
        assert governor.pace >= governors.SLOWEST
        assert governor.reason
