"""What is remembered of blocks that rounds reported: how lately, how often, in how many bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.backup import heat as heats
from headstart.backup.heat import Heat
from headstart.blocks import Blocks
from headstart.units import KIB

ROUND = 900.0


def after(*rounds: Blocks, heat: Heat | None = None, every: float = ROUND) -> Heat:
    heat = heat or Heat()
    for number, dirty in enumerate(rounds):
        heat = heats.seen(heat, dirty, (heat.moment or 0.0) + (every if number else ROUND))
    return heat


def ages(heat: Heat, wanted: Blocks, now: float) -> dict[int, float]:
    return {block: kind.age for kind in heats.kinds(heat, wanted, now) for block in kind.blocks}


def counts(heat: Heat, block: int) -> int:
    return sum(1 << bit for bit, plane in enumerate(heat.planes) if block in plane)


def test_age_is_from_the_middle_of_the_round_that_reported_it() -> None:
    heat = after(Blocks([1, 2]), Blocks([2]))
    now = ROUND * 2
    assert ages(heat, Blocks([2]), now) == {2: ROUND / 2}
    assert ages(heat, Blocks([1]), now) == {1: ROUND}, "of the first round nobody knows when it began"


def test_what_was_never_reported_is_as_old_as_can_be() -> None:
    assert ages(after(Blocks([1])), Blocks([7]), ROUND) == {7: heats.KEPT_SECONDS}


@pytest.mark.parametrize(("times", "count"), [(1, 1), (3, 3), (7, 7), (9, 7)])
def test_counts_end_at_what_a_byte_holds(times: int, count: int) -> None:
    assert counts(after(*[Blocks([5])] * times), 5) == count


def test_rounds_in_quick_succession_are_one_visit() -> None:
    assert counts(after(*[Blocks([5])] * 6, every=10.0), 5) == 1


def test_a_completion_halves_counts() -> None:
    heat = heats.completed(after(*[Blocks([5])] * 7))
    assert counts(heat, 5) == 3
    assert ages(heat, Blocks([5]), heat.moment or 0.0) == {5: ROUND / 2}


def test_what_is_old_is_forgotten() -> None:
    heat = heats.seen(after(Blocks([1])), Blocks([2]), heats.KEPT_SECONDS + 2 * ROUND)
    heat = heats.seen(heat, Blocks([2]), (heat.moment or 0) + ROUND)
    assert all(1 not in each.entries for each in heat.generations)
    assert counts(heat, 1) == 0


def test_a_clock_that_was_put_back_harms_nothing() -> None:
    heat = heats.seen(after(Blocks([1]), Blocks([2])), Blocks([3]), 1.0)
    assert heat.moment == 2 * ROUND
    assert ages(heat, Blocks([1, 2, 3]), 1.0) == {1: 0.0, 2: 0.0, 3: 0.0}


some_rounds = some.lists(
    some.tuples(some.sets(some.integers(0, 300), max_size=40).map(Blocks), some.floats(1, 50_000)), max_size=25
)


@given(some_rounds)
def test_generations_are_disjoint_ordered_and_few(rounds: list[tuple[Blocks, float]]) -> None:
    heat, now, latest = Heat(), 0.0, dict[int, float]()
    for dirty, passed in rounds:
        now += passed
        latest |= dict.fromkeys(dirty, now)
        heat = heats.seen(heat, dirty, now)
    moments = [each.moment for each in heat.generations]
    assert moments == sorted(moments, reverse=True)
    union = Blocks.union(Blocks(), *(each.entries for each in heat.generations))
    assert len(union) == sum(len(each.entries) for each in heat.generations)
    young = {block for block, moment in latest.items() if now - moment < heats.KEPT_SECONDS / 2}
    assert young <= set(union)
    assert all(union.issuperset(plane) for plane in heat.planes)
    assert heats.decode(heats.encode(heat)) == heat


def test_a_week_of_rounds_leaves_few_sets_and_true_ages() -> None:
    heat = after(*(Blocks([number]) for number in range(7 * 96)))
    now = heat.moment or 0.0
    assert len(heat.generations) < 40
    for block, age in ages(heat, Blocks(range(7 * 96)), now).items():
        true = now - ROUND * (block + 0.5)
        assert age == pytest.approx(true, rel=0.45, abs=ROUND)


def test_it_fits_into_any_number_of_bytes() -> None:
    source = random.Random(1)
    heat = after(*(Blocks(source.sample(range(1 << 20), 5000)) for _ in range(30)))
    assert heat.size > 256 * KIB
    small = heats.fitted(heat, 64 * KIB)
    assert small.size <= 64 * KIB
    assert small.shift > 0
    again = heats.seen(small, Blocks([12345]), (heat.moment or 0) + ROUND)
    assert ages(again, Blocks([12345]), again.moment or 0) == {12345: ROUND / 2}


@given(some.sets(some.integers(0, 5000)).map(Blocks), some.integers(0, 6))
def test_entries_cover_their_blocks(found: Blocks, shift: int) -> None:
    assert heats.fine(heats.coarse(found, shift), shift).issuperset(found)
    assert set(heats.coarse(found, shift)) == {block >> shift for block in found}


@given(some.sets(some.integers(0, 500), min_size=1).map(Blocks), some.integers(0, 3))
def test_kinds_part_what_is_wanted(wanted: Blocks, shift: int) -> None:
    heat = after(Blocks(range(0, 400, 3)), Blocks(range(100)), Blocks(range(50, 60)))
    for _ in range(shift):
        heat = heats.fitted(heat, heat.size - 1)
    kinds = list(heats.kinds(heat, wanted, 5 * ROUND))
    assert sum(len(each.blocks) for each in kinds) == len(wanted)
    assert Blocks.union(*(each.blocks for each in kinds)) == wanted


@given(some.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="heat of a disk"):
        heats.decode(data)


def test_damage_is_refused() -> None:
    data = heats.encode(after(Blocks(range(100)), Blocks([3])))
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 4
        with pytest.raises(ValueError, match="heat of a disk"):
            heats.decode(bytes(damaged))
