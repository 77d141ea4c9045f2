"""What is usual for a VM."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart.load import usual
from headstart.load.usual import Usual

FIGURES = some.lists(some.floats(0, 1), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("figures", "share", "value"),
    [
        ([], 0.5, None),
        ([0.1] * (usual.FEWEST - 1), 0.5, None),
        ([0.1] * usual.FEWEST, 0.5, 0.1),
        ([number / 100 for number in range(1, 101)], 0.0, 0.01),
        ([number / 100 for number in range(1, 101)], 0.5, 0.5),
        ([number / 100 for number in range(100, 0, -1)], 0.75, 0.75),
        ([number / 100 for number in range(1, 101)], 1.0, 1.0),
    ],
)
def test_percentiles(figures: list[float], share: float, value: float | None) -> None:
    assert Usual.of(figures).percentile(share) == value


@pytest.mark.parametrize(("figure", "rank"), [(-1, 0.0), (1, 0.0), (2, 0.25), (2.5, 0.75), (9, 1.0)])
def test_ranks(figure: float, rank: float) -> None:
    assert Usual.of([1.0, 2.0, 2.0, 3.0]).rank(figure) == rank


def test_of_an_unknown_vm_nothing_is_much() -> None:
    assert Usual().rank(1.0) == 0.0
    assert not Usual().known


def test_a_vm_that_always_does_the_same_is_not_busy() -> None:
    """Least of all one that does nothing."""
    assert Usual.of([0.0] * 100).rank(0.0) == 0.0


@given(FIGURES, some.floats(0, 1))
def test_a_percentile_is_not_exceeded_in_its_share_of_the_time(figures: list[float], share: float) -> None:
    value = usual.percentile(sorted(figures), share)
    assert sum(each <= value for each in figures) >= share * len(figures) - 1e-9
    assert sum(each < value for each in figures) <= share * len(figures)
    assert Usual.of(figures).rank(value) <= share


def test_a_week_is_kept() -> None:
    figures = Usual.of(range(usual.KEPT + 5))
    assert (figures.figures[0], len(figures.figures)) == (5, usual.KEPT)
