"""Copying in virtual time: at a bandwidth, and as the governor says. Long steps come to the same as short ones."""

from __future__ import annotations

import itertools
import random

import pytest

from headstart.blocks import Blocks
from headstart.simulation import copier
from headstart.simulation.copier import Full, Governed, Portion
from headstart.simulation.load import Load
from headstart.units import BLOCK_SIZE, MIB

DAY = 86400.0
CALM = Load([0.0], [0.0], DAY)
BUSY = Load([0.0], [0.99], DAY)


def total(portions: list[Portion]) -> int:
    return sum(len(each.blocks) for each in portions)


def test_full_speed_is_the_bandwidth() -> None:
    found = list(Full(CALM, 10.0 * MIB).copy(Blocks(range(1600)), 50.0, DAY, DAY))
    assert total(found) == 1600
    assert found[-1].begin + found[-1].seconds == pytest.approx(60.0)


def test_it_ends_in_time() -> None:
    found = list(Full(CALM, 10.0 * MIB).copy(Blocks(range(1600)), 50.0, 55.0, DAY))
    assert total(found) == 800
    assert Blocks.union(*(each.blocks for each in found)) == Blocks(range(800))


@pytest.mark.parametrize("load", [CALM, BUSY, Load([0.0, 100.0, 200.0], [0.1, 0.9, 0.0], DAY)])
def test_every_block_is_copied_once_and_in_order(load: Load) -> None:
    wanted = Blocks(range(0, 50_000, 3))
    found = list(Governed(load, 20.0 * MIB).copy(wanted, 0.0, 5000.0, DAY))
    copied = [block for each in found for block in each.blocks]
    assert copied == sorted(set(copied))
    assert wanted.issuperset(Blocks(copied))
    ends = [(each.begin, each.begin + each.seconds) for each in found]
    assert all(end <= begin + 1e-6 for (_, end), (begin, _) in itertools.pairwise(ends))


def test_nothing_is_copied_in_a_busy_vm() -> None:
    assert not list(Governed(BUSY, 20.0 * MIB).copy(Blocks(range(100)), 0.0, 5000.0, DAY))


def test_beside_a_load_that_trembles_but_is_always_the_same_it_is_copied() -> None:
    chance = random.Random(1)
    load = Load([2.0 * each for each in range(6000)], [chance.gauss(0.3, 0.03) for _ in range(6000)], 12_000.0)
    found = list(Governed(load, 20.0 * MIB).copy(Blocks(range(1000)), 7200.0, 12_000.0, DAY))
    assert total(found) == 1000


def test_it_goes_on_when_the_load_has_gone() -> None:
    load = Load([0.0, 600.0], [0.99, 0.0], DAY)
    found = list(Governed(load, 20.0 * MIB).copy(Blocks(range(100)), 0.0, 5000.0, DAY))
    assert total(found) == 100
    assert 600 < found[0].begin < 700


@pytest.mark.parametrize(
    ("load", "left"),
    [
        (CALM, 3000.0),
        (Load([0.0], [0.5], DAY), 3000.0),
        (Load([0.0, 40.0, 90.0, 200.0, 900.0], [0.1, 0.5, 0.8, 0.3, 0.05], DAY), 3000.0),
        (Load([0.0], [0.5], DAY), 200.0),
    ],
)
def test_long_steps_come_to_the_same(monkeypatch: pytest.MonkeyPatch, load: Load, left: float) -> None:
    """Blocks copied until each of some moments, with steps as the daemon takes them, and longer ones."""
    wanted, begin = Blocks(range(400_000)), 0.0

    def progress() -> list[float]:
        found = list(Governed(load, 30.0 * MIB).copy(wanted, begin, begin + left, begin + left))
        until = [left * share for share in (0.1, 0.3, 0.5, 0.8, 1.0)]
        return [_until(found, moment) for moment in until]

    long = progress()
    monkeypatch.setattr(copier, "LONGEST", 0.5)
    monkeypatch.setattr(copier, "SLOWLY", 0.5)
    short = progress()
    assert long == pytest.approx(short, rel=0.01)


def _until(portions: list[Portion], moment: float) -> float:
    """Blocks, with a part of the portion that is under way."""
    shares = (min(1.0, max(0.0, (moment - each.begin) / each.seconds)) for each in portions)
    return sum(len(each.blocks) * share for each, share in zip(portions, shares, strict=True))


def test_a_slow_copy_does_not_lose_parts_of_blocks() -> None:
    """At a fraction of a block in every step."""
    load = Load([0.0], [0.5], DAY)
    found = list(Governed(load, BLOCK_SIZE / 10).copy(Blocks(range(50)), 0.0, 300.0, DAY))
    assert total(found) == pytest.approx(30, abs=1)
