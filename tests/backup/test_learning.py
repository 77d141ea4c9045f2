"""What is learned of a disk: how long blocks survive, what was wasted, how much rounds report."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.backup import heat as heats
from headstart.backup import learning
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.blocks import Blocks

HOUR = 3600.0


def lived(blocks: int, rate: float, *, rounds: int, every: float) -> tuple[Heat, Learned]:
    """Each block is dirtied again at random, so often a second."""
    source, heat, learned = random.Random(1), Heat(), Learned()
    for number in range(rounds):
        dirty = Blocks(block for block in range(blocks) if source.random() < -math.expm1(-rate * every))
        learned = learning.seen(learned, heat, dirty, Blocks(), number * every)
        heat = heats.seen(heat, dirty, number * every)
    return heat, learned


@pytest.mark.parametrize("rate", [1 / 600, 1 / HOUR, 1 / (6 * HOUR)])
@pytest.mark.parametrize("every", [300.0, 900.0])
def test_the_hazard_is_found_out(rate: float, every: float) -> None:
    _, learned = lived(2000, rate, rounds=150, every=every)
    # Classes of counts sort blocks by luck here; who is in the most frequent one is a typical block.
    found = learning.risk(learned, 2 * every, 2 if rate > 1 / (2 * HOUR) else 1, HOUR)
    assert found == pytest.approx(-math.expm1(-rate * HOUR), rel=0.35)


def test_hot_blocks_are_told_from_cold_ones() -> None:
    source, heat, learned = random.Random(2), Heat(), Learned()
    for number in range(96):
        hot = Blocks(block for block in range(500) if source.random() < 0.7)
        dirty = hot | Blocks(range(10_000 + number * 100, 10_100 + number * 100))
        learned = learning.seen(learned, heat, dirty, Blocks(), number * 900.0)
        heat = heats.seen(heat, dirty, number * 900.0)
    assert learning.risk(learned, 450.0, 2, HOUR) > 0.8
    assert learning.risk(learned, 450.0, 0, HOUR) < 0.1


@given(some.floats(0, 1e6), some.integers(0, 2), some.floats(0, 1e6), some.floats(0, 1e6))
def test_risk_is_a_probability_that_grows_with_time(age: float, often: int, seconds: float, more: float) -> None:
    learned = Learned()
    short, long = (learning.risk(learned, age, often, span) for span in (seconds, seconds + more))
    assert 0 <= short <= long <= 1
    assert learning.risk(learned, age, often, 0.0) == 0


def test_old_counts_fade() -> None:
    heat, learned = lived(1000, 1 / 600, rounds=100, every=900.0)
    for number in range(1, 200):
        moment = (heat.moment or 0.0) + 6 * HOUR * number
        learned = learning.seen(learned, Heat(moment=moment - 6 * HOUR), Blocks(), Blocks(), moment)
    assert sum(map(sum, learned.deaths)) < 1


@pytest.mark.parametrize(
    ("copied", "wasted", "residue", "goes"), [(1000, 300, 0, -1), (1000, 10, 0, 1), (1000, 0, 0, 1), (0, 0, 50, 0)]
)
def test_waste_moves_the_threshold(copied: int, wasted: int, residue: int, goes: int) -> None:
    before = Learned(copied=copied, wasted=wasted)
    after = learning.completed(before, residue, 0.0)
    moved = after.threshold - before.threshold
    assert (moved > 0) - (moved < 0) == goes
    assert (after.copied, after.wasted) == (0, 0)


def test_the_threshold_stays_within_bounds() -> None:
    for wasted, end in ((900, learning.LEAST_THRESHOLD), (0, learning.MOST_THRESHOLD)):
        learned = Learned()
        for _ in range(30):
            learned = learning.completed(
                learning.copied(Learned(learned.deaths, learned.lives, learned.threshold, 0, wasted), 1000), 0, 0
            )
        assert learned.threshold == end


def test_what_is_copied_and_dirtied_again_is_waste() -> None:
    learned = learning.seen(Learned(), Heat(moment=1.0), Blocks([1, 2, 9]), Blocks([1, 2, 3]), 2.0)
    assert learned.wasted == 2


@pytest.mark.parametrize(("seconds", "least", "most"), [(900, 90, 110), (1800, 90, 220), (10, 2, 30), (60, 5, 40)])
def test_what_rounds_report_is_known_by_their_length(seconds: float, least: float, most: float) -> None:
    learned, heat = Learned(), Heat()
    moment = 0.0
    for _ in range(20):
        for passed, count in ((900.0, 100), (10.0, 8)):
            moment += passed
            learned = learning.seen(learned, heat, Blocks(range(count)), Blocks(), moment)
            heat = heats.seen(heat, Blocks(range(count)), moment)
    assert least <= (learning.dirtied_within(learned, seconds) or 0) <= most


def test_nothing_is_known_at_first() -> None:
    assert learning.dirtied_within(Learned(), 60.0) is None


def test_a_clock_that_was_put_back_teaches_nothing() -> None:
    learned = learning.seen(Learned(), Heat(moment=100.0), Blocks([1]), Blocks(), 50.0)
    assert learned == Learned()


def test_it_is_kept() -> None:
    _, learned = lived(100, 1 / HOUR, rounds=30, every=900.0)
    learned = learning.completed(learning.copied(learned, 100), 7, 3.5)
    assert learning.decode(learning.encode(learned)) == learned


def broken(**changes: object) -> str:
    return json.dumps(json.loads(learning.encode(Learned())) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '"x"',
        broken(version=99),
        broken(threshold="much"),
        broken(threshold=-1),
        broken(deaths=[[1.0]]),
        broken(lives=None),
        broken(lives=[1, 2, 3]),
        broken(dirtied=[[1, 2, 3]] * learning.LENGTHS),
        broken(outcomes=[None]),
        broken(outcomes=3),
        broken(copied=True),
        broken(wasted=float("nan")),
    ],
)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        learning.decode(text)
