"""When backups are due: clock changes, delays, what was missed, and clocks that are set."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.host import calendar
from headstart.host.calendar import Due
from headstart.host.policy import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NIGHTLY = Schedule(("02:30",), BERLIN)
HOURLY = Schedule(("hourly",), BERLIN)


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def moments(schedule: Schedule, start: str, count: int) -> list[str]:
    """The next ones, as the clock on the wall has them."""
    found = []
    moment: datetime | None = datetime.fromisoformat(start).replace(tzinfo=BERLIN)
    for _ in range(count):
        assert moment is not None
        moment = calendar.following(schedule, moment)
        found.append(f"{moment:%d %H:%M %Z}")
    return found


# -- expressions


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("daily", ""),
        ("Mon..Fri 02:30", ""),
        ("*-*~01 00:00", ""),
        ("*:0/15", ""),
        ("2025-02-30", ""),
        ("25:00", "bad hour"),
        ("Mon 02:30 Europe/Berlin", "wrong number of fields"),
        ("", "wrong number of fields"),
        ("every day", "bad day-of-week"),
    ],
)
def test_expressions(expression: str, wrong: str) -> None:
    assert calendar.check(expression) == wrong


# -- moments


@pytest.mark.parametrize(
    ("calendar_", "start", "expected"),
    [
        # Set forward on the 29th, at 02:00.
        ("02:30", "2026-03-28T12:00", ["29 03:00 CEST", "30 02:30 CEST"]),
        ("02:00", "2026-03-28T12:00", ["29 03:00 CEST", "30 02:00 CEST"]),
        ("03:00", "2026-03-28T12:00", ["29 03:00 CEST", "30 03:00 CEST"]),
        ("00,02,04:15", "2026-03-29T00:00", ["29 00:15 CET", "29 03:00 CEST", "29 04:15 CEST"]),
        ("hourly", "2026-03-29T00:30", ["29 01:00 CET", "29 03:00 CEST", "29 04:00 CEST"]),
        ("*:30", "2026-03-29T01:00", ["29 01:30 CET", "29 03:30 CEST", "29 04:30 CEST"]),
        # Set back on the 25th, at 03:00.
        ("02:30", "2026-10-24T12:00", ["25 02:30 CEST", "26 02:30 CET"]),
        ("02:00", "2026-10-24T12:00", ["25 02:00 CEST", "26 02:00 CET"]),
        ("03:00", "2026-10-24T12:00", ["25 03:00 CET", "26 03:00 CET"]),
        ("hourly", "2026-10-25T00:30", ["25 01:00 CEST", "25 02:00 CEST", "25 02:00 CET", "25 03:00 CET"]),
        ("*:30", "2026-10-25T02:00", ["25 02:30 CEST", "25 02:30 CET", "25 03:30 CET"]),
        # Far apart, and on a leap day.
        ("*-02-29", "2026-01-01T00:00", ["29 00:00 CET", "29 00:00 CET"]),
        ("Mon *-*-01..07 01:00", "2026-10-25T00:00", ["02 01:00 CET", "07 01:00 CET"]),
    ],
)
def test_moments(calendar_: str, start: str, expected: list[str]) -> None:
    assert moments(Schedule((calendar_,), BERLIN), start, len(expected)) == expected


def test_a_list_is_all_of_them_in_order() -> None:
    schedule = Schedule(("Sat 12:00", "02:30", "Sat 02:30"), BERLIN)
    assert moments(schedule, "2026-11-20T12:00", 4) == ["21 02:30 CET", "21 12:00 CET", "22 02:30 CET", "23 02:30 CET"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu"])
def test_every_time_comes_once_a_day_in_all_zones(zone: str) -> None:
    """Also where the clock is set by half an hour, or at midnight."""
    for hour, minute in itertools.product((0, 1, 2, 3), (0, 10, 45)):
        schedule = Schedule((f"{hour}:{minute}",), ZoneInfo(zone))
        moment, days = datetime(2026, 1, 1, tzinfo=UTC), Counter[str]()
        while (moment := calendar.following(schedule, moment) or moment).year == 2026:
            days[f"{moment:%m-%d}"] += 1
        assert set(days.values()) == {1} and len(days) >= 364


EXPRESSIONS = ("02:30", "hourly", "*:0/20", "Sun 03:00", "*-10-25 02:30", "*-03-29 02:10", "2..3:0/30")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3),
    st.integers(int(at("2026-03-27T00:00")), int(at("2026-11-01T00:00"))),
)
def test_previous_is_the_other_way_round(expressions: list[str], seconds: int) -> None:
    schedule = Schedule(tuple(expressions), BERLIN)

    def seen(found: datetime | None) -> float | None:
        """Zoned times with one zone are compared by what stands on the wall, so not here."""
        return None if found is None else found.timestamp()

    def following(at: float) -> float | None:
        return seen(calendar.following(schedule, datetime.fromtimestamp(at, UTC)))

    def previous(at: float) -> float | None:
        return seen(calendar.previous(schedule, datetime.fromtimestamp(at, UTC)))

    after, before = following(seconds), previous(seconds)
    assert after is not None and after > seconds
    assert before is not None and before <= seconds
    assert previous(after) == after
    assert previous(after - 1) == before
    assert following(before) == after


@pytest.mark.parametrize("start", ["2026-03-28T22:00", "2026-10-24T22:00"])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_next_moment_is_the_same_from_anywhere_before_it(expression: str, start: str) -> None:
    """No second around a change of the clock loses one, or goes back."""
    schedule = Schedule((expression,), BERLIN)
    begin = int(at(start))
    last = -math.inf
    for seconds in range(begin, begin + 6 * 3600, 97):
        found = calendar.following(schedule, datetime.fromtimestamp(seconds, UTC))
        assert found is not None and found.timestamp() > seconds and found.timestamp() >= last
        last = found.timestamp()


def test_what_never_comes() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for expression in ("2025-02-30", "02-30"):
        schedule = Schedule((expression,), BERLIN)
        assert calendar.following(schedule, now) is None
        assert calendar.previous(schedule, now) is None
        assert calendar.period(schedule, now) is None
    past = Schedule(("2020-05-05 12:00",), BERLIN)
    assert calendar.following(past, now) is None
    assert calendar.previous(past, now) == datetime(2020, 5, 5, 12, tzinfo=BERLIN)


def test_the_first_moment_of_all() -> None:
    schedule = Schedule(("1970-01-01 00:00:00",), UTC)
    assert calendar.previous(schedule, datetime(2026, 1, 1, tzinfo=UTC)) == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_thousand_moments_long_ago_are_no_burden() -> None:
    schedule = Schedule(("2025-*-* *:*:*",), UTC)
    assert calendar.previous(schedule, datetime(2040, 1, 1, tzinfo=UTC)) == datetime(
        2025, 12, 31, 23, 59, 59, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("expressions", "seconds", "between"),
    [
        (("hourly",), HOUR, (HOUR, HOUR)),
        (("daily",), DAY, (DAY, DAY)),
        (("Mon..Fri 02:00", "Mon..Fri 12:00"), 10 * HOUR, (10 * HOUR, 62 * HOUR)),
        (("daily", "00:00"), DAY, (DAY, DAY)),
        (("2030-01-01",), None, (math.inf, math.inf)),
    ],
)
def test_periods(expressions: tuple[str, ...], seconds: float | None, between: tuple[float, float]) -> None:
    schedule = Schedule(expressions, UTC)
    moment = datetime(2026, 11, 25, 8, tzinfo=UTC)  # a Wednesday
    assert calendar.period(schedule, moment) == seconds
    assert calendar.gaps(schedule, moment) == between


def test_periods_over_a_change_of_the_clock() -> None:
    assert calendar.period(NIGHTLY, datetime(2026, 10, 25, 2, tzinfo=BERLIN)) == DAY
    assert calendar.period(NIGHTLY, datetime(2026, 10, 25, 12, tzinfo=BERLIN)) == 25 * HOUR


# -- delays


def test_delays_are_spread_and_stay() -> None:
    schedule = Schedule(("daily",), UTC, random_delay=1800.0)
    moment = at("2026-11-26T00:00", ZoneInfo("UTC"))
    found = [calendar.delay(schedule, f"vm{number}", moment) for number in range(1000)]
    assert found == [calendar.delay(schedule, f"vm{number}", moment) for number in range(1000)]
    assert all(0 <= each < 1800 for each in found)
    counts = Counter(int(each // 180) for each in found)
    assert len(counts) == 10 and min(counts.values()) > 60
    assert calendar.delay(schedule, "vm1", moment) != calendar.delay(schedule, "vm1", moment + DAY)
    # A restart with another version must not move them either.
    assert calendar.delay(schedule, "web", moment) == 579.0


def test_no_delay() -> None:
    assert calendar.delay(NIGHTLY, "web", at("2026-11-26T02:30")) == 0


# -- due

#: Today's, yesterday's.
TODAY, BEFORE = at("2026-11-26T02:30"), at("2026-11-25T02:30")
TOMORROW = at("2026-11-27T02:30")


@pytest.mark.parametrize(
    ("missed", "last", "now", "watched", "expected"),
    [
        # Nothing is due.
        (True, BEFORE + 60, TODAY - 600, DAY, Due(TODAY, False, TODAY)),
        (True, TODAY + 5, TODAY + 600, DAY, Due(TOMORROW, False, TOMORROW)),
        # It is time, and stays so until it is done.
        (True, BEFORE + 60, TODAY, DAY, Due(TODAY, False, TODAY)),
        (True, BEFORE + 60, TODAY + 3, DAY, Due(TODAY, False, TODAY)),
        (False, BEFORE + 60, TODAY + 3600, DAY, Due(TODAY, False, TODAY)),
        # Nobody was there.
        (True, BEFORE + 60, TODAY + 3600, 10.0, Due(TODAY + 3600, True, TODAY)),
        (True, BEFORE - 9 * DAY, TODAY + 3600, 10.0, Due(TODAY + 3600, True, TODAY)),
        (False, BEFORE + 60, TODAY + 3600, 10.0, Due(TOMORROW, False, TOMORROW)),
        (False, BEFORE - 9 * DAY, TODAY + 3600, 10.0, Due(TOMORROW, False, TOMORROW)),
        # Somebody came just in time.
        (False, BEFORE + 60, TODAY + 3, 4.0, Due(TODAY, False, TODAY)),
        # A backup by hand counts for what was before it, and for what is very near.
        (True, TODAY + 3600, TODAY + 7200, DAY, Due(TOMORROW, False, TOMORROW)),
        (True, TODAY - 30, TODAY + 1, DAY, Due(TOMORROW, False, TOMORROW)),
        (True, TODAY - 90, TODAY + 1, DAY, Due(TODAY, False, TODAY)),
        # Never backed up, and nobody knows since when it is there.
        (True, None, TODAY - 600, 0.0, Due(TODAY, False, TODAY)),
        (True, None, TODAY + 600, 0.0, Due(TOMORROW, False, TOMORROW)),
        (True, None, TODAY + 3, 600.0, Due(TODAY, False, TODAY)),
    ],
)
def test_due(missed: bool, last: float | None, now: float, watched: float, expected: Due) -> None:
    schedule = Schedule(("02:30",), BERLIN, missed=missed)
    assert calendar.due(schedule, "web", last, now, watched) == expected


def owed(schedule: Schedule, last: float | None, now: float, watched: float) -> float:
    found = calendar.due(schedule, "web", last, now, watched)
    return calendar.owed(found, schedule, "web", last, now, watched)


@pytest.mark.parametrize(
    ("schedule", "last", "now", "watched", "expected"),
    [
        # Nothing is: as it will be due.
        (NIGHTLY, TODAY + 5, TODAY + 600, DAY, TOMORROW),
        (NIGHTLY, BEFORE + 60, TODAY + 600, DAY, TODAY),
        # The oldest one, whoever was there; not the newest, nor when somebody came to make up for it.
        (HOURLY, TODAY - 1700, TODAY + 9 * HOUR, DAY, TODAY + 0.5 * HOUR),
        (NIGHTLY, BEFORE + 60, TODAY + 600, 10.0, TODAY),
        (NIGHTLY, BEFORE - 9 * DAY, TODAY + 600, 10.0, BEFORE - 8 * DAY),
        # Those that nobody wants made up for are not owed.
        (Schedule(("hourly",), BERLIN, missed=False), BEFORE, TODAY + 3 * HOUR, 2 * HOUR, TODAY + 1.5 * HOUR),
        # A backup of a clock that was years ahead tells nothing.
        (NIGHTLY, TODAY + 900 * DAY, TODAY + 600, DAY, TODAY),
        (NIGHTLY, None, TODAY + 600, DAY, TODAY),
        (Schedule(("2020-01-01 02:30",), BERLIN), TODAY, TODAY + 600, DAY, math.inf),
    ],
)
def test_owed(schedule: Schedule, last: float | None, now: float, watched: float, expected: float) -> None:
    assert owed(schedule, last, now, watched) == expected


def test_what_is_owed_is_so_after_its_delay() -> None:
    schedule = Schedule(("02:30",), BERLIN, random_delay=3600.0)
    wait = calendar.delay(schedule, "web", BEFORE)
    assert owed(schedule, BEFORE - DAY + 3600, BEFORE + wait + 600, 0) == BEFORE + wait
    assert owed(schedule, BEFORE - DAY + 3600, TODAY + 7200, DAY) == BEFORE + wait


def test_an_ended_schedule_is_never_due() -> None:
    schedule = Schedule(("2026-11-26 02:30",), BERLIN)
    assert calendar.due(schedule, "web", BEFORE, TODAY - 60) == Due(TODAY, False, TODAY)
    assert calendar.due(schedule, "web", TODAY + 5, TODAY + 60) == Due(math.inf)
    # The last one may have been missed.
    assert calendar.due(schedule, "web", BEFORE, TODAY + 60) == Due(TODAY + 60, True, TODAY)


def test_a_delayed_backup_is_due_after_its_delay() -> None:
    schedule = Schedule(("02:30",), BERLIN, random_delay=3600.0)
    wait = calendar.delay(schedule, "web", TODAY)
    assert wait > 60
    for now in (TODAY - 10, TODAY, TODAY + wait - 1, TODAY + wait, TODAY + wait + 10):
        assert calendar.due(schedule, "web", BEFORE + 3600, now, DAY) == Due(TODAY + wait, False, TODAY)
    # Who starts within the delay has missed nothing.
    assert calendar.due(schedule, "web", BEFORE + 3600, TODAY + 1, 0) == Due(TODAY + wait, False, TODAY)
    # What was missed before comes at once, and the delayed one still comes.
    assert calendar.due(schedule, "web", BEFORE - DAY, TODAY + 1, 0) == Due(TODAY + 1, True, BEFORE)


# -- clocks that are set


class Clock:
    """A host whose scheduler looks every three hours, and when something is due, and then makes the backup. ``shift``
    is how wrong the clock of the host is; the sky knows what time it is."""

    def __init__(self, schedule: Schedule, start: float) -> None:
        self.schedule = schedule
        self.sky = start
        self.shift = 0.0
        self.last = start - 60
        self.begun = start
        #: The moments that had backups, and when they were by the sky.
        self.made: list[tuple[float, float]] = []

    def run(self, seconds: float) -> None:
        end = self.sky + seconds
        while True:
            now = self.sky + self.shift
            due = calendar.due(self.schedule, "web", self.last, now, self.sky - self.begun)
            if due.at <= now:
                self.made.append((due.moment, self.sky))
                self.last = max(now + 5, due.moment)
            if self.sky >= end:
                return
            self.sky = min(self.sky + min(max(due.at - now, 1.0), 3 * HOUR), end)

    @property
    def longest_gap(self) -> float:
        return max(later - earlier for (_, earlier), (_, later) in itertools.pairwise(self.made))


def twice(made: Sequence[tuple[float, float]]) -> list[float]:
    return [moment for moment, count in Counter(moment for moment, _ in made).items() if count > 1]


def test_a_steady_clock() -> None:
    clock = Clock(HOURLY, at("2026-10-24T12:00"))
    clock.run(2 * DAY)
    assert len(clock.made) == 48
    assert not twice(clock.made)
    assert clock.longest_gap == HOUR


@pytest.mark.parametrize("shift", [-0.5, -5, -120, -HOUR, -5 * HOUR, -23 * HOUR, 5, HOUR, 23 * HOUR])
@pytest.mark.parametrize("hours", [0, 2.49, 2.51, 3, 20])
def test_a_clock_that_is_set_by_less_than_a_day(shift: float, hours: float) -> None:
    """One backup for each scheduled moment, and no day without."""
    clock = Clock(NIGHTLY, at("2026-11-20T00:00"))
    clock.run(2 * DAY + hours * HOUR)
    clock.shift = shift
    clock.run(4 * DAY)
    assert not twice(clock.made)
    assert clock.longest_gap <= 2 * DAY


@pytest.mark.parametrize("shift", [5, 120, HOUR, 23 * HOUR])
@pytest.mark.parametrize("hours", [0, 2.49, 2.51, 3, 20])
def test_a_clock_that_was_ahead_for_a_while(shift: float, hours: float) -> None:
    clock = Clock(NIGHTLY, at("2026-11-20T00:00"))
    clock.run(2 * DAY + hours * HOUR)
    clock.shift = shift
    clock.run(3 * HOUR)
    clock.shift = 0
    clock.run(3 * DAY)
    assert not twice(clock.made)
    assert clock.longest_gap <= 2 * DAY


@pytest.mark.parametrize("shift", [-400 * DAY, -3 * DAY, 3 * DAY, 400 * DAY, 20 * 365 * DAY])
def test_a_clock_that_was_very_wrong(shift: float) -> None:
    """Rather one backup too many than days without."""
    clock = Clock(NIGHTLY, at("2026-11-20T00:00"))
    clock.run(2 * DAY + 5 * HOUR)
    clock.shift = shift
    clock.run(2 * HOUR)
    clock.shift = 0
    clock.run(4 * DAY)
    assert clock.longest_gap <= DAY
    assert len(clock.made) <= 7 + 2


def test_a_clock_that_is_corrected_in_the_middle_of_a_backup() -> None:
    """The scheduler begins at 02:30, the clock is set back by an hour, and 02:30 comes once more."""
    last = max(TODAY - HOUR, TODAY)
    assert calendar.due(NIGHTLY, "web", last, TODAY - HOUR + 60, DAY) == Due(TOMORROW, False, TOMORROW)
    assert calendar.due(NIGHTLY, "web", last, TODAY + 60, DAY) == Due(TOMORROW, False, TOMORROW)


@pytest.mark.parametrize("seed", range(3))
def test_clocks_that_are_set_all_the_time(seed: int) -> None:
    """Corrections of minutes, as of a bad clock: one backup for each moment, and none is left out."""
    dice = random.Random(seed)
    clock = Clock(Schedule(("0/6:00",), BERLIN, random_delay=1200.0), at("2026-10-20T00:00"))
    for _ in range(40):
        clock.shift = dice.uniform(-300, 300)
        clock.run(HOUR * dice.random() * 4)
    assert not twice(clock.made)
    ordered = [moment for moment, _ in clock.made]
    assert ordered == sorted(ordered)
    assert clock.longest_gap < 7.5 * HOUR + 600
