"""Runs: in which order they are listed, and which of them were under way at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from unittest import mock

import pytest

from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.values import Vm


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal.in_memory() as opened:
        opened.add_vm(Vm("web"))
        yield opened


def test_runs_are_listed_newest_first(journal: Journal) -> None:
    numbers = [Runs(journal).begin("web", "precopy") for _ in range(5)]
    found = Runs(journal).newest("web", limit=3)
    assert [run.number for run in found] == numbers[:1:-1]
    assert found[0].ended is None
    assert Runs(journal).newest("app") == []


def test_old_runs_go_but_not_all_at_once_should_the_clock_be_wrong(journal: Journal) -> None:
    numbers = [Runs(journal).begin("web", "precopy") for _ in range(5)]
    with mock.patch("time.time", return_value=time.time() + 91 * 24 * 3600):
        numbers.append(Runs(journal).begin("web", "precopy"))
    assert [run.number for run in Runs(journal).newest("web")] == numbers[:1:-1]


def test_runs_between_are_those_under_way(journal: Journal) -> None:
    spans = [(0, 100), (90, 110), (95, None), (120, 80), (150, 160), (199, 300), (200, 210)]
    numbers = [Runs(journal).begin("web", "precopy") for _ in spans]
    values = [(*span, number) for span, number in zip(spans, numbers, strict=True)]
    with journal.change() as database:
        database.executemany("UPDATE runs SET begun = ?, ended = ? WHERE number = ?", values)
    Runs(journal).begin("app", "precopy")
    between = Runs(journal).between("web", 100.0, 200.0)
    assert [(run.begun, run.ended) for run in between] == [(0, 100), (90, 110), (120, 80), (150, 160), (199, 300)]


def test_the_newest_run_that_never_ended_is_still_under_way(journal: Journal) -> None:
    numbers = [Runs(journal).begin("web", "precopy") for _ in range(3)]
    with journal.change() as database:
        database.execute("UPDATE runs SET begun = 10.0")
    assert [run.number for run in Runs(journal).between("web", 100.0, 200.0)] == numbers[-1:]
    assert Runs(journal).between("web", 0.0, 10.0) == []
