"""Signals from two looks at a guest's counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.hypervisor.counters import Counters, DiskCounters, Histogram
from headstart.load import outside

QUIET = DiskCounters(1 << 20, 1 << 20, 10, 10, 5, 1.0, 2.0, 0.5)
BEFORE = Counters(100.0, 50.0, 2, {"a": QUIET, "b": QUIET}, 1234)


def after(
    seconds: float = 2.0, cpu: float | None = 50.0, disks: Mapping[str, DiskCounters] = BEFORE.disks, pid: int = 1234
) -> Counters:
    return Counters(100.0 + seconds, cpu, 2, disks, pid)


def with_disk(**grown: float) -> dict[str, DiskCounters]:
    """One of the two has done so much more."""
    values = {name: getattr(QUIET, name) + grown[name] for name in grown}
    return {"a": QUIET, "b": replace(QUIET, **values)}


def test_an_idle_guest() -> None:
    found = outside.signals(BEFORE, after())
    assert (found.moment, found.values, found.latency) == (102.0, {"guest.cpu": 0, "guest.disk": 0}, None)
    assert found.missing == ()


@pytest.mark.parametrize(
    ("cpu", "expected"), [(51.0, 0.25), (54.0, 1.0), (60.0, 1.0), (49.0, None), (None, None)], ids=str
)
def test_cpus_are_shared_by_all(cpu: float | None, expected: float | None) -> None:
    """Less than before: one was unplugged."""
    found = outside.signals(BEFORE, after(cpu=cpu))
    assert found.values.get("guest.cpu") == expected
    assert found.missing == (() if expected is not None else ("guest.cpu",))


@pytest.mark.parametrize(
    ("grown", "expected"),
    [
        ({"read_seconds": 0.5}, 0.25),
        ({"write_seconds": 0.5, "flush_seconds": 0.5, "read_seconds": 0.2}, 0.6),
        ({"write_seconds": 64.0}, 1.0),
    ],
)
def test_the_busiest_disk_counts(grown: dict[str, float], expected: float) -> None:
    assert outside.signals(BEFORE, after(disks=with_disk(**grown))).values["guest.disk"] == pytest.approx(expected)


def test_two_processes_are_not_compared() -> None:
    for other in (after(pid=99), after(seconds=0.0), after(seconds=-1.0)):
        found = outside.signals(BEFORE, other)
        assert found.values == {} and found.missing == ("guest.cpu", "guest.disk") and found.latency is None


def test_disks_that_come_and_go() -> None:
    new = replace(QUIET, read_seconds=90.0)
    found = outside.signals(BEFORE, after(disks={"b": QUIET, "c": new}))
    assert found.values["guest.disk"] == 0
    found = outside.signals(BEFORE, after(disks={"c": new}))
    assert found.missing == ("guest.disk",)


def test_a_disk_that_was_plugged_in_again_began_anew() -> None:
    found = outside.signals(BEFORE, after(disks={"a": QUIET, "b": replace(QUIET, reads=0, read_seconds=99.0)}))
    assert found.values["guest.disk"] == 0


# -- latency

BOUNDS = (0.001, 0.002, 0.004)


def writing(counts: tuple[int, ...], writes: int, seconds: float) -> tuple[Counters, Counters]:
    """Two looks, between which so much was written."""
    base = tuple(1000 for _ in counts)
    first = replace(QUIET, write_latency=Histogram(BOUNDS, base))
    then = replace(
        first,
        writes=first.writes + writes,
        write_seconds=first.write_seconds + seconds,
        write_latency=Histogram(BOUNDS, tuple(a + b for a, b in zip(base, counts, strict=True))),
    )
    return Counters(100.0, None, 1, {"a": first}), Counters(102.0, None, 1, {"a": then})


@pytest.mark.parametrize(
    ("counts", "writes", "seconds", "expected"),
    [
        ((100, 0, 0, 0), 100, 0.05, 0.00095),
        ((0, 100, 0, 0), 100, 0.15, 0.00195),
        ((90, 0, 10, 0), 100, 0.15, 0.003),
        ((96, 0, 0, 4), 100, 40.0, 0.00099),  # outliers: less than one in twenty
        ((50, 0, 0, 50), 100, 40.0, 0.004),  # above the last bound
        ((0, 0, 5, 0), 5, 0.015, 0.003),  # too few: the mean
        ((0, 0, 0, 0), 0, 0.0, None),
    ],
)
def test_latency_is_what_nearly_all_writes_feel(
    counts: tuple[int, ...], writes: int, seconds: float, expected: float | None
) -> None:
    before, later = writing(counts, writes, seconds)
    found = outside.signals(before, later).latency
    assert found == (None if expected is None else pytest.approx(expected, rel=0.02))


def test_without_a_histogram_it_is_the_mean_of_all_disks() -> None:
    disks = {name: replace(QUIET, writes=20, write_seconds=2.0 + each) for name, each in (("a", 0.1), ("b", 0.3))}
    assert outside.signals(BEFORE, after(disks=disks)).latency == pytest.approx(0.02)


def test_a_histogram_that_began_anew_or_has_other_bounds_does_not_count() -> None:
    before, later = writing((0, 0, 100, 0), 100, 0.1)
    for histogram in (Histogram((1.0,), (1, 1)), Histogram(BOUNDS, (0, 0, 5, 0)), None):
        disk = replace(later.disks["a"], write_latency=histogram)
        found = outside.signals(before, replace(later, disks={"a": disk}))
        assert found.latency == pytest.approx(0.001)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any), st.floats(0.01, 1))
def test_a_percentile_is_within_its_bounds(counts: list[int], part: float) -> None:
    found = outside.percentile(Histogram(BOUNDS, tuple(counts)), part)
    assert 0 <= found <= BOUNDS[-1]
    below = sum(count for bound, count in zip(BOUNDS, counts, strict=False) if bound <= found)
    assert below <= part * sum(counts) + 1e-6 or found in BOUNDS


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any))
def test_percentiles_grow(counts: list[int]) -> None:
    histogram = Histogram(BOUNDS, tuple(counts))
    found = [outside.percentile(histogram, part / 20) for part in range(1, 21)]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("grown", "expected"),
    [
        ({"writes": 2, "write_seconds": 0.02}, 0.01),
        ({"flushes": 4, "flush_seconds": 0.2}, 0.05),
        ({"writes": 2, "write_seconds": 0.02, "flushes": 4, "flush_seconds": 0.2}, 0.05),
        ({"writes": 2, "write_seconds": 0.02, "flushes": 4, "flush_seconds": 0.004}, 0.01),
    ],
)
def test_a_flush_that_takes_longer_counts_instead(grown: dict[str, float], expected: float) -> None:
    assert outside.signals(BEFORE, after(disks=with_disk(**grown))).latency == pytest.approx(expected)
