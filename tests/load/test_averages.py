"""Moving averages of figures that arrive at uneven intervals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.load.averages import Average

VALUES = some.floats(-1e6, 1e6)
TIMES = some.floats(0, 1e6)


def after(seconds: float, *figures: tuple[float, float]) -> Average:
    average = Average(seconds)
    for value, moment in figures:
        average = average.moved(value, moment)
    return average


def test_the_first_value_is_taken_as_it_is() -> None:
    assert after(60.0, (0.7, 5.0)).value == 0.7


@pytest.mark.parametrize(("passed", "share"), [(0.0, 0.0), (60.0, 1 - 1 / math.e), (6000.0, 1.0)])
def test_after_its_time_most_of_the_way_is_gone(passed: float, share: float) -> None:
    assert after(60.0, (0.0, 0.0), (1.0, passed)).value == pytest.approx(share)


@given(VALUES, VALUES, TIMES, TIMES, some.floats(0.1, 1000))
def test_it_does_not_matter_how_often_it_is_told(
    start: float, value: float, one: float, other: float, seconds: float
) -> None:
    at_once = after(seconds, (start, 0.0), (value, one + other)).value
    in_two = after(seconds, (start, 0.0), (value, one), (value, one + other)).value
    assert in_two == pytest.approx(at_once, rel=1e-6, abs=1e-3)


@given(some.lists(some.tuples(VALUES, TIMES), min_size=1), some.floats(0.1, 1000))
def test_it_stays_among_its_values(figures: list[tuple[float, float]], seconds: float) -> None:
    """Also where a clock goes backwards."""
    value = after(seconds, *figures).value
    values = [each for each, _ in figures]
    assert value is not None
    assert min(values) - 1e-6 <= value <= max(values) + 1e-6
