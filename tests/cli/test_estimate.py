"""How long it will take still."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headstart.cli import estimate
from headstart.cli.estimate import Estimate

TOTAL = 100_000


def followed(course: Callable[[float], float], until: float, begin: float = 0.0) -> tuple[Estimate, list[float]]:
    """What is said at each second, of what has the course's bytes done at a moment; told ten times a second."""
    found, said = Estimate(), []
    for tick in range(int(begin * 10), int(until * 10) + 1):
        moment = tick / 10
        found.add(moment, int(course(moment)), TOTAL)
        left = found.seconds_left(moment)
        if left is not None and not tick % 10:
            said.append(left)
    return found, said


def test_an_even_course_is_told_exactly() -> None:
    _, said = followed(lambda moment: 1000 * moment, 99)
    assert [round(left) for left in said] == list(range(97, 0, -1))


def test_nothing_is_said_at_first_nor_without_a_step() -> None:
    assert followed(lambda moment: 1000 * moment, 2.9)[1] == []
    assert followed(lambda moment: 0, 60)[1] == []


def test_what_was_there_is_no_speed() -> None:
    _, said = followed(lambda moment: 90_000 + 100 * moment, 50)
    assert said[0] == pytest.approx(97, abs=1)


def test_bursts_hardly_show() -> None:
    """Five seconds of it at a time."""
    _, said = followed(lambda moment: 5000 * (moment // 5), 95)
    assert all(0.6 < left / (100 - second) < 1.6 for second, left in enumerate(said[10:80], 13))


def test_a_change_shows_soon() -> None:
    """From 1000 to 100 a second."""
    course = lambda moment: 1000 * moment if moment < 30 else 30_000 + 100 * (moment - 30)  # noqa: E731
    _, said = followed(course, 60)
    assert said[-1] == pytest.approx(670, abs=70)


def test_it_grows_while_nothing_gets_on() -> None:
    found, said = followed(lambda moment: 1000 * moment, 50)
    later = found.seconds_left(70)
    assert later is not None and later > said[-1]


def test_at_the_end_nothing_is_left() -> None:
    assert followed(lambda moment: 1000 * moment, 100)[1][-1] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.2, "5 s left"),
        (43, "45 s left"),
        (61, "1 min left"),
        (8 * 60 + 20, "8 min left"),
        (33 * 60, "35 min left"),
        (100 * 60, "1.5 h left"),
        (30 * 3600, "30 h left"),
        (80 * 3600, "3 days left"),
    ],
)
def test_a_time_is_told_in_words(seconds: float | None, text: str) -> None:
    assert estimate.told(seconds) == text
