"""What is said of the scheduled time beforehand, and whether it comes true."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.backup import forecast, learning
from headstart.backup import heat as heats
from headstart.backup.forecast import Disk, Range
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.backup.selection import Situation
from headstart.blocks import Blocks
from headstart.simulation import load, replay, trace
from headstart.simulation.world import World
from headstart.units import BLOCK_SIZE, GIB, KIB, MIB
from tests.simulation import made

DAY = 86400.0


def seen(count: int = 100) -> Disk:
    """So many blocks in each quarter of an hour, a tenth of them in ten seconds; nothing remains."""
    heat, learned, moment = Heat(), Learned(), 0.0
    for number, (passed, blocks) in enumerate(
        itertools.chain.from_iterable([((900.0, count), (10.0, count // 10))] * 20)
    ):
        moment += passed
        dirty = Blocks(range(number * count, number * count + blocks))
        learned = learning.seen(learned, heat, dirty, Blocks(), moment)
        heat = heats.seen(heat, dirty, moment)
    return Disk(heat, learned, Blocks())


def told(disk: Disk, left: float | None = 3600.0, **options: Any) -> forecast.Forecast:
    now = disk.heat.moment or 0.0
    situation = Situation(now, None if left is None else now + left, len(disk.remaining) * BLOCK_SIZE, 100.0 * MIB)
    return forecast.forecast([disk], situation, **options)


def test_it_is_about_what_a_last_round_reports() -> None:
    found = told(seen(1000))
    assert found.residue.low <= 60 * BLOCK_SIZE <= found.residue.high
    assert found.window.likely == pytest.approx(forecast.WINDOW_SECONDS + found.residue.likely / (100 * MIB))
    assert found.spool == found.residue
    assert not found.reasons


def test_the_audit_is_in_the_window_and_in_nothing_else() -> None:
    plain, audited = told(seen(1000)), told(seen(1000), audited=200 * MIB)
    assert audited.window.likely == pytest.approx(plain.window.likely + 2.0)
    assert audited.window.low == pytest.approx(plain.window.low + 2.0)
    assert (audited.residue, audited.spool) == (plain.residue, plain.spool)


def test_what_there_is_no_time_for_is_residue() -> None:
    disk = seen(10)
    late = Disk(disk.heat, disk.learned, Blocks(range(160_000)))
    assert told(late, 60.0).residue.likely > 3 * GIB
    assert told(late, 6 * 3600.0).residue.likely < 100 * MIB


def test_without_a_deadline_all_that_remains_is_expected() -> None:
    disk = seen(10)
    assert told(Disk(disk.heat, disk.learned, Blocks(range(1600))), None).residue.high >= 100 * MIB


def test_no_more_is_left_than_the_disk_has() -> None:
    """Nor is it where nothing is known of the guest yet: what there is time for is copied ahead."""
    size = 100 * GIB // BLOCK_SIZE
    first = Disk(Heat(), Learned(), Blocks(range(size)), count=size)
    assert told(first, DAY, scratch_free=500 * GIB).residue.high < GIB
    late = told(first, 60.0, scratch_free=500 * GIB)
    assert late.residue.likely > 50 * GIB and late.residue.high == 100 * GIB and not late.reasons
    assert forecast.expected(first, Situation(0.0, DAY)) is None, "no completion is held against that"
    hot = seen(10_000)
    busy = Situation(hot.heat.moment or 0.0, (hot.heat.moment or 0.0) + 2 * DAY, 0, 100.0 * MIB, 0.9)
    high = [
        forecast.forecast([Disk(hot.heat, hot.learned, hot.remaining, count=count)], busy).residue.high
        for count in (math.inf, 20_000)
    ]
    assert high[0] > 100 * GIB and high[1] == 20_000 * BLOCK_SIZE


def test_a_busy_vm_may_stay_so() -> None:
    disk = seen(10)
    late = Disk(disk.heat, disk.learned, Blocks(range(160_000)))
    now = disk.heat.moment or 0.0
    highs = [
        forecast.forecast([late], Situation(now, now + 20_000, 10 * GIB, 100.0 * MIB, rank)).residue.high
        for rank in (None, 0.5, 0.9)
    ]
    assert highs[0] == highs[1] < GIB
    assert highs[2] > 9 * GIB


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, []),
        ({"scratch_free": 100 * GIB, "spool_free": 100 * GIB}, []),
        ({"scratch_free": 100 * KIB}, ["scratch"]),
        ({"spool_free": 0, "scratch_free": 0}, ["scratch", "spool"]),
    ],
)
def test_what_will_not_fit_is_named(options: dict[str, int | None], named: list[str]) -> None:
    found = told(seen(1000), **options)
    assert [reason.split(" of ")[1].split()[0] for reason in found.reasons] == named


def test_outcomes_of_its_own_count() -> None:
    disk = seen(1000)
    usual = disk.learned
    for _ in range(learning.OUTCOMES):
        usual = learning.completed(usual, 300, 100.0)
    before, after = told(disk).residue, told(Disk(disk.heat, usual, disk.remaining)).residue
    assert after.likely == pytest.approx(3 * before.likely, rel=0.6)
    assert after.high / after.low < before.high / before.low


@given(
    some.integers(0, 2000), some.floats(0, 1e6) | some.none(), some.floats(1, 1e9) | some.none(), some.integers(0, 3000)
)
def test_the_range_is_one(count: int, left: float | None, rate: float | None, remaining: int) -> None:
    disk = seen(20)
    now = disk.heat.moment or 0.0
    situation = Situation(now, None if left is None else now + left, remaining * BLOCK_SIZE, rate)
    found = forecast.forecast([Disk(disk.heat, disk.learned, Blocks(range(remaining)))] * 2, situation)
    for each in (found.residue, found.window, found.scratch, found.spool):
        assert 0 <= each.low <= each.likely <= each.high


def test_four_in_five_come_true() -> None:
    """Of traces unlike those that the figures of docs/planning-figures.md are of."""
    found = []
    for seed in range(4):
        rows = trace.of(made.writes(seed, hours=7 * 24 - 0.1, every=60.0))
        played = replay.compare(World(rows, load.of_trace(rows, 7 * DAY), DAY, 100.0 * MIB)).headstart
        found += [each.forecast.residue.low <= each.residue <= each.forecast.residue.high for each in played.forecasts]
    assert len(found) == 4 * 7 * 2
    assert sum(found) / len(found) >= 0.7


def test_ranges_add_up() -> None:
    assert Range(1, 2, 3).plus(Range(1, 1, 1)).times(2) == Range(4, 6, 8)
