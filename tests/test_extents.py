"""Extents against naive sets of bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart import extents
from headstart.extents import Extent

any_extent = some.builds(Extent, some.integers(0, 60), some.integers(1, 20))
several = some.lists(any_extent, max_size=8)


def covered(given_extents: list[Extent]) -> set[int]:
    return {byte for extent in given_extents for byte in range(extent.start, extent.end)}


def assert_apart(found: list[Extent]) -> None:
    """Ascending, and neither overlapping nor touching."""
    assert all(one.end < other.start for one, other in itertools.pairwise(found))


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0), (3, -1)])
def test_empty_and_negative_ones_do_not_exist(start: int, length: int) -> None:
    with pytest.raises(ValueError, match=rf"^no such extent: {start}\+{length}$"):
        Extent(start, length)


def test_the_end_is_not_inside() -> None:
    assert Extent(3, 4).end == 7


@given(several, some.integers(1, 30))
def test_portions_are_the_same_bytes(found: list[Extent], at_most: int) -> None:
    portions = list(extents.portions(found, at_most))
    assert [byte for portion in portions for each in portion for byte in range(each.start, each.end)] == [
        byte for each in found for byte in range(each.start, each.end)
    ]
    sizes = [sum(each.length for each in portion) for portion in portions]
    assert all(0 < size <= at_most for size in sizes)
    # One is ended only where the next piece does not fit.
    assert all(size + after[0].length > at_most for size, after in zip(sizes, portions[1:], strict=False))


@given(several)
def test_merging_keeps_every_byte_and_joins_neighbours(found: list[Extent]) -> None:
    merged = extents.merge(found)
    assert covered(merged) == covered(found)
    assert_apart(merged)
    assert extents.merge(reversed(merged)) == merged


@given(several, some.integers(0, 100))
def test_gaps_are_what_is_not_covered(found: list[Extent], size: int) -> None:
    gaps = extents.gaps(found, size)
    assert covered(gaps) == set(range(size)) - covered(found)
    assert_apart(gaps)


@given(any_extent, some.integers(1, 25))
def test_pieces_follow_each_other_and_cross_no_border(extent: Extent, at_most: int) -> None:
    pieces = list(extents.split(extent, at_most))
    assert pieces[0].start == extent.start
    assert pieces[-1].end == extent.end
    assert all(one.end == other.start for one, other in itertools.pairwise(pieces))
    assert all(piece.start // at_most == (piece.end - 1) // at_most for piece in pieces)
    # No more of them than borders.
    assert len(pieces) == (extent.end - 1) // at_most - extent.start // at_most + 1
