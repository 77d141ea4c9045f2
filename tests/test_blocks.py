"""Sets of blocks against naive sets."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart import blocks
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.units import KIB, TIB

SIZE_OF_BLOCK = some.integers(1, 9)
SIZE = some.integers(0, 200)
numbers = some.sets(some.integers(0, 60))


def bytes_of(block: int, block_size: int, size: int) -> set[int]:
    return set(range(block * block_size, min((block + 1) * block_size, size)))


@given(SIZE, SIZE_OF_BLOCK)
def test_everything_is_all_blocks_of_a_disk(size: int, block_size: int) -> None:
    expected = {byte // block_size for byte in range(size)}
    assert set(blocks.everything(size, block_size)) == expected
    assert blocks.count_of(size, block_size) == len(expected)


@given(some.integers(1, 200), SIZE_OF_BLOCK)
def test_the_lengths_of_all_blocks_are_the_disk(size: int, block_size: int) -> None:
    lengths = [blocks.length_of(block, block_size, size) for block in blocks.everything(size, block_size)]
    assert sum(lengths) == size
    assert all(length == block_size for length in lengths[:-1])


@given(some.lists(some.builds(Extent, some.integers(0, 100), some.integers(1, 30))), SIZE_OF_BLOCK)
def test_an_extent_is_every_block_that_it_touches(found: list[Extent], block_size: int) -> None:
    expected = {byte // block_size for extent in found for byte in range(extent.start, extent.end)}
    assert set(blocks.of_extents(found, block_size)) == expected


@given(numbers)
def test_runs_are_unbroken_and_as_long_as_can_be(members: set[int]) -> None:
    found = list(blocks.runs(Blocks(members)))
    assert [block for first, count in found for block in range(first, first + count)] == sorted(members)
    assert all(first - 1 not in members and first + count not in members for first, count in found)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 1000, 65535, 65536, 65537, 2**27])
def test_long_runs_are_one_run(count: int) -> None:
    members = Blocks([5])
    members.add_range(7, 7 + count)
    assert list(blocks.runs(members)) == [(5, 1), (7, count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 1000, 65535, 65536, 65537, 2**27, 2**32 - 1])
def test_a_run_to_the_last_block_that_there_can_be(count: int) -> None:
    members = Blocks([0])
    members.add_range(2**32 - count, 2**32)
    expected = [(0, 2**32)] if count == 2**32 - 1 else [(0, 1), (2**32 - count, count)]
    assert list(blocks.runs(members)) == expected


@given(numbers, some.integers(1, 200), SIZE_OF_BLOCK)
def test_extents_of_a_set_are_its_bytes_on_the_disk(members: set[int], size: int, block_size: int) -> None:
    found = list(blocks.to_extents(Blocks(members), block_size, size))
    expected = set[int]().union(*(bytes_of(block, block_size, size) for block in members))
    assert [byte for extent in found for byte in range(extent.start, extent.end)] == sorted(expected)
    assert all(one.end < other.start for one, other in itertools.pairwise(found))


@given(numbers, some.integers(1, 200), SIZE_OF_BLOCK)
def test_the_bytes_of_a_set_are_counted(members: set[int], size: int, block_size: int) -> None:
    inside = Blocks(members) & blocks.everything(size, block_size)
    expected = sum(len(bytes_of(block, block_size, size)) for block in inside)
    assert blocks.total_bytes(inside, block_size, size) == expected
    back = blocks.of_extents(blocks.to_extents(inside, block_size, size), block_size)
    assert back == inside


@given(numbers, some.integers(0, 80), some.randoms(use_true_random=False))
def test_a_sample_has_as_many_as_there_are(members: set[int], count: int, source: random.Random) -> None:
    drawn = blocks.sample(Blocks(members), count, source)
    assert set(drawn) <= members
    assert len(drawn) == min(count, len(members))


def test_a_sample_is_the_callers_own() -> None:
    members = Blocks([1, 2])
    blocks.sample(members, 5, random.Random(1)).add(9)
    assert members == Blocks([1, 2])


def test_a_large_disk_is_small() -> None:
    members = blocks.everything(6 * TIB, 64 * KIB)
    assert blocks.total_bytes(members, 64 * KIB, 6 * TIB) == 6 * TIB
    assert list(blocks.to_extents(members, 64 * KIB, 6 * TIB)) == [Extent(0, 6 * TIB)]
    members.run_optimize()
    assert len(members.serialize()) < 64 * KIB
