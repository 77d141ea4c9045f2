"""What of a round is copied now: cold blocks first, hot ones when the deadline is near, and not too much at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.backup import heat as heats
from headstart.backup import learning, selection
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.backup.selection import Situation
from headstart.blocks import Blocks
from headstart.units import BLOCK_SIZE, MIB

HOUR = 3600.0
HOT, COLD = Blocks(range(200)), Blocks(range(5000, 5200))


def known() -> tuple[Heat, Learned, float]:
    """A day in which 200 blocks were written all the time, and 200 others six hours ago, once."""
    source, heat, learned, moment = random.Random(1), Heat(), Learned(), 0.0
    for number in range(96):
        moment = 900.0 * number
        dirty = Blocks(block for block in HOT if source.random() < 0.9) | Blocks([20_000 + number])
        if number == 72:
            dirty |= COLD
        learned = learning.seen(learned, heat, dirty, Blocks(), moment)
        heat = heats.seen(heat, dirty, moment)
    return heat, learned, moment


HEAT, LEARNED, NOW = known()
REMAINING = HOT | COLD


def chosen(left: float | None, **others: float | None) -> selection.Selection:
    deadline = None if left is None else NOW + left
    situation = Situation(NOW, deadline, len(REMAINING) * BLOCK_SIZE, 100.0 * MIB, **others)
    return selection.select(REMAINING, HEAT, LEARNED, situation)


@pytest.mark.parametrize(
    ("left", "hot"),
    [(3 * HOUR, False), (HOUR, False), (900.0, False), (9.0, True), (1.0, True), (0.0, True), (None, False)],
)
def test_hot_blocks_wait_for_the_deadline(left: float | None, hot: bool) -> None:
    found = chosen(left)
    assert found.now.issuperset(COLD)
    assert len(found.now & HOT) / len(HOT) > 0.9 if hot else not found.now & HOT


@pytest.mark.parametrize(
    ("left", "rank", "waits"),
    [(3 * HOUR, 0.9, True), (3 * HOUR, 0.5, False), (3 * HOUR, None, False), (20.0, 0.9, False), (None, 0.9, False)],
)
def test_a_busy_vm_is_left_alone_while_there_is_time(left: float | None, rank: float | None, waits: bool) -> None:
    found = chosen(left, rank=rank)
    assert (not found.now) == waits
    assert found.now | found.later == REMAINING


def test_what_was_never_reported_is_copied() -> None:
    found = selection.select(Blocks(range(100_000, 100_050)), HEAT, LEARNED, Situation(NOW, NOW + 12 * HOUR))
    assert len(found.now) == 50


def test_a_round_copies_no_more_than_it_can_and_the_coldest_first() -> None:
    rate = len(COLD) * BLOCK_SIZE / selection.ROUND_SECONDS / 2
    situation = Situation(NOW, NOW + HOUR, len(REMAINING) * BLOCK_SIZE, rate)
    found = selection.select(REMAINING, HEAT, LEARNED, situation)
    assert found.unfinished
    assert len(found.now) == len(COLD) // 2
    assert found.now.issubset(COLD)


def test_neighbours_go_together() -> None:
    around = Blocks([100_000, 100_002, 100_004, 100_010])
    between = Blocks([100_001, 100_007])
    heat = heats.seen(HEAT, between, NOW)
    for number in range(1, 8):
        heat = heats.seen(heat, between, NOW + number * 900.0)
    now = heat.moment or 0.0
    found = selection.select(around | between, heat, LEARNED, Situation(now, now + 6 * HOUR))
    assert found.now == around | Blocks([100_001])
    assert found.later == Blocks([100_007])


@pytest.mark.parametrize("left", [10 * HOUR, HOUR, 600.0, 60.0, 10.0, 1.0])
def test_the_threshold_rises_towards_the_deadline(left: float) -> None:
    def limit(seconds: float) -> float:
        return selection.limit(LEARNED, Situation(0.0, seconds, 100 * MIB, 100.0 * MIB))

    assert LEARNED.threshold <= limit(left * 2) <= limit(left) <= selection.LAST


block_sets = some.sets(some.integers(0, 400)).map(Blocks)


@given(
    block_sets, some.floats(0, 1e5) | some.none(), some.floats(1, 1e9) | some.none(), some.floats(0, 1) | some.none()
)
def test_every_block_is_either_chosen_or_deferred(
    remaining: Blocks, left: float | None, rate: float | None, rank: float | None
) -> None:
    situation = Situation(NOW, None if left is None else NOW + left, len(remaining) * BLOCK_SIZE, rate, rank)
    found = selection.select(remaining, HEAT, LEARNED, situation)
    assert found.now.isdisjoint(found.later)
    assert found.now | found.later == remaining
    assert 0 <= found.vain <= len(found.now)
