"""What ``make bench`` says of the figures that were published last."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import page, published, spans
from bench.figure import Figure

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def figure(name: str, ratio: float, unit: str = "s", peer: str = "restic 0.14.0") -> Figure:
    return Figure(name, ratio, 1.0, peer, ratio, unit, 3)


def told(before: list[Figure], now: list[Figure]) -> list[str]:
    return [str(each) for each in published.changes(published.read(page.table(before)), now)]


def test_the_page_that_is_published_can_be_read() -> None:
    found = published.read(PAGE.read_text())
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(found) == len(rows) > 30
    assert all(ratio > 0 for ratio in found.values())


def test_what_a_run_missed_is_told() -> None:
    text = PAGE.read_text()
    rows = [Figure(name, ratio, 1.0, peer, ratio, "s", 3) for (name, peer), ratio in published.read(text).items()]
    lines = text.partition("This run missed:")[2].splitlines()
    told = [line.removeprefix("- ").partition(", beside ")[0] for line in lines if ", beside " in line]
    assert told == [line.partition(", beside ")[0] for line in page.missed(rows)]
    assert len(told) == 6
    assert not list(page.missed([figure("full backup", 0.5), figure("full backup: peak memory", 3.0)]))


def test_a_span_without_a_write_is_no_good_one() -> None:
    assert spans.latencies([(1.0, 0.25)], lambda _: True).worst == 250.0
    with pytest.raises(RuntimeError, match="wrote nothing"):
        _ = spans.latencies([], lambda _: True).worst


def test_what_became_slower_is_told_first() -> None:
    before = [figure("restore", 0.50), figure("verify", 0.60), figure("backup", 1.00)]
    now = [figure("restore", 0.40), figure("verify", 0.80), figure("backup", 1.10)]
    assert told(before, now) == [
        "worse: verify beside restic 0.14.0: 0.60 -> 0.80 (+33 %)",
        "better: restore beside restic 0.14.0: 0.50 -> 0.40 (-20 %)",
    ]


def test_bytes_and_processor_time_are_steadier() -> None:
    names = ("backup: bytes stored", "backup: processor time")
    before = [figure(names[0], 1.00, "bytes"), figure(names[1], 1.00)]
    assert len(told(before, [figure(names[0], 1.08, "bytes"), figure(names[1], 1.08)])) == 2


def test_of_a_rate_more_is_better() -> None:
    assert told([figure("pace", 0.5, "MB/s")], [figure("pace", 0.9, "MB/s")])[0].startswith("better: pace")


def test_another_version_of_the_peer_is_the_same_peer() -> None:
    before = published.read(page.table([figure("restore", 0.5)]))
    assert not published.missing(before, [figure("restore", 0.5, peer="restic 0.18.1")])
    assert published.missing(before, [figure("verify", 0.5)]) == ["not measured: restore beside restic"]
