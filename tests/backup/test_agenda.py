"""When rounds begin: seldom far from the deadline, closer and closer towards it, and the last one in time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.backup import agenda

DAY = 86400.0


def rounds(deadline: float, seconds: float, begin: float = 0.0, **options: float) -> list[float]:
    """Until there is no other, each with so many seconds of copying."""
    found: list[float] = []
    now, ended = begin, None
    while (at := agenda.next_round(now, deadline, ended, seconds=seconds, **options)) is not None:
        found.append(at)
        now = ended = at + agenda.ROTATION + seconds
        assert len(found) < 1000
    return found


@pytest.mark.parametrize(
    ("ended", "options", "expected"),
    [
        (None, {}, 1000.0),
        (900.0, {}, 1800.0),
        (900.0, {"interval": 60.0}, 1000.0),
        (0.0, {"interval": 60.0}, 1000.0),
    ],
)
def test_without_a_deadline_there_is_a_round_every_interval(
    ended: float | None, options: dict[str, float], expected: float
) -> None:
    assert agenda.next_round(1000.0, None, ended, **options) == expected


def test_far_from_the_deadline_there_is_one_every_interval() -> None:
    found = rounds(DAY, 1.0)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert gaps[:90] == [pytest.approx(902.0)] * 90
    assert len(found) < 115


@pytest.mark.parametrize("seconds", [0.0, 2.0, 30.0])
def test_the_last_round_ends_just_before_the_deadline(seconds: float) -> None:
    last = rounds(DAY, seconds)[-1]
    ended = last + agenda.ROTATION + seconds
    # Nearer than that no other one would fit in.
    assert 0 <= DAY - ended < agenda.LEAST + agenda.ROTATION + agenda.MARGIN + seconds


def test_rounds_come_closer_together_but_not_too_close() -> None:
    found = rounds(DAY, 1.0)[-8:]
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert all(later <= earlier + 3 for earlier, later in itertools.pairwise(gaps))
    assert min(gaps) >= agenda.LEAST


def test_it_does_not_begin_earlier_than_the_policy_says() -> None:
    assert rounds(DAY, 1.0, begin_before=3600.0)[0] == DAY - 3600.0
    assert agenda.next_round(DAY - 60.0, DAY, None, begin_before=3600.0) == DAY - 60.0


@pytest.mark.parametrize(("left", "seconds", "there"), [(100.0, 1000.0, True), (3.0, 0.0, True), (1.0, 0.0, False)])
def test_a_first_round_is_worth_it_also_where_it_will_not_end(left: float, seconds: float, there: bool) -> None:
    assert (agenda.next_round(0.0, left, None, seconds=seconds) is not None) == there


def test_no_round_begins_where_it_cannot_end() -> None:
    assert agenda.next_round(100.0, 130.0, 99.0, seconds=60.0) is None


@given(
    some.floats(0, 1e5),
    some.floats(-10, 1e5),
    some.floats(0, 1e4) | some.none(),
    some.floats(1, 4000),
    some.floats(0, 5000),
)
def test_it_lies_between_now_and_the_deadline(
    now: float, left: float, ago: float | None, interval: float, seconds: float
) -> None:
    ended = None if ago is None else now - ago
    at = agenda.next_round(now, now + left, ended, interval=interval, seconds=seconds)
    assert at is None or now <= at < now + left


@pytest.mark.parametrize(
    ("remaining", "rate", "seconds"), [(0, None, 0.0), (100, 50.0, 2.0), (100, 0.0, 100 / (50 << 20))]
)
def test_how_long_copying_takes(remaining: int, rate: float | None, seconds: float) -> None:
    assert agenda.duration(remaining, rate) == pytest.approx(seconds)
