"""What was measured, a row a minute."""

from __future__ import annotations

import pytest

from headstart.host.minutes import Levels, Minutes
from headstart.state.journal import Journal
from headstart.state.series import KEPT_SECONDS, Minute, Series
from headstart.state.values import Vm


def test_a_minute_is_kept_when_it_is_over() -> None:
    kept: list[Minute] = []
    levels = [Levels("idle", 10, 5)]
    minutes = Minutes(lambda: levels[-1], kept.append)
    minutes.add(120.0, 0.2, 0.001, 100)
    minutes.add(150.0, 0.4, None, 50)
    assert not kept
    levels.append(Levels("paced", 7, 3))
    minutes.add(181.0, None, None, 0)
    assert [(each.moment, each.state, each.copied, each.remaining, each.deferred) for each in kept] == [
        (120, "paced", 150, 7, 3)
    ]
    assert kept[0].load == pytest.approx(0.3) and kept[0].latency == 0.001
    minutes.end()
    assert kept[1] == Minute(180, None, None, "paced", 0, 7, 3)


def test_a_clock_that_jumps_loses_no_bytes() -> None:
    kept: list[Minute] = []
    minutes = Minutes(lambda: Levels("idle", 0, 0), kept.append)
    for moment in (600.0, 7200.0, 300.0, 301.0):
        minutes.add(moment, 0.1, None, 10)
    minutes.end()
    assert sum(each.copied for each in kept) == 40
    assert [each.moment for each in kept] == [600, 7200, 300]


@pytest.fixture
def series() -> Series:
    journal = Journal.in_memory()
    journal.add_vm(Vm("web"))
    return Series(journal)


def minute(moment: int, load: float | None = 0.5, copied: int = 0, latency: float | None = None) -> Minute:
    return Minute(moment, load, latency, "idle", copied, 0, 0)


def test_series_are_ascending_and_old_ones_go(series: Series) -> None:
    for moment in (600, 60, 660):
        series.add("web", minute(moment))
    assert [each.moment for each in series.minutes("web", 0, 1e9)] == [60, 600, 660]
    series.add("web", minute(KEPT_SECONDS + 630))
    assert [each.moment for each in series.minutes("web", 0, 1e9)] == [660, KEPT_SECONDS + 600 + 30]


def test_a_clock_that_was_wrong_for_a_while_takes_little_with_it(series: Series) -> None:
    day, year = 24 * 3600, 365 * 24 * 3600
    for moment in (*range(0, 1200, 60), year, year + 60, *range(1200, 1320, 60)):
        series.add("web", minute(moment, 0.9 if moment >= year else 0.5))
        assert set(series.loads("web", 0, day, 300)) == {0.5}
    assert [each.moment for each in series.minutes("web", 0, 1e9)] == [*range(240, 1320, 60)]


def test_loads_are_means_of_five_minutes(series: Series) -> None:
    for moment, load in ((0, 0.2), (60, 0.4), (300, None), (600, 0.9), (660, 0.1)):
        series.add("web", minute(moment, load))
    assert series.loads("web", 0, 659, 300) == [pytest.approx(0.3), 0.9]


def test_latencies_are_the_guests_own(series: Series) -> None:
    series.add("web", minute(0, latency=0.001))
    series.add("web", minute(60, latency=0.5, copied=1))
    series.add("web", minute(120))
    assert series.latencies("web", 0, 1e9) == [0.001]


def test_pauses_and_heats_survive_and_go_with_the_vm(series: Series) -> None:
    series.pause("web", 5.0)
    series.pause("web", 6.0)
    series.keep_heats("web", {"a": (b"heat", "{}")})
    assert series.paused("web") and series.heats("web") == {"a": (b"heat", "{}")}
    series.resume("web")
    assert not series.paused("web")
    series.keep_heats("web", {})
    assert not series.heats("web")
