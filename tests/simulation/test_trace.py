"""Traces and loads from files: what is in them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from headstart import errors
from headstart.simulation import load, trace
from headstart.units import TIB
from tests.simulation import made, scorer


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("header", [True, False])
def test_a_trace_is_read_with_and_without_a_header(tmp_path: Path, header: bool) -> None:
    found = trace.read(
        made.file(tmp_path / "t.csv", [(1.0, 0, 4096), (2.5, 65535, 2), (9.0, 1 << 20, 100 << 20)], header)
    )
    assert found.disk_size == 101 << 20
    assert found.end == 9.0
    assert list(found.dirty(0, 2.5)) == [0]
    assert list(found.dirty(2.5, 9)) == [0, 1]
    assert list(found.dirty(9, 10)) == list(range(16, 16 + 1600))
    assert found.written == {0: 4096 + 2 + (100 << 20)}


def test_spaces_and_empty_lines_are_no_matter(tmp_path: Path) -> None:
    found = trace.read(written(tmp_path / "t.csv", "time, offset, length\n\n 1.5 , 0, 10\n\n2,65536,1\n"))
    assert list(found.dirty(0, 3)) == [0, 1]


@given(some.integers(0, 5), some.floats(0, 80_000), some.floats(0, 80_000))
def test_what_is_dirty_is_what_was_written(seed: int, one: float, other: float) -> None:
    since, until = sorted((one, other))
    rows = made.writes(seed, hours=6, every=120)
    found = trace.of(rows).dirty(since, until)
    expected = {block for moment, *where in rows if since <= moment < until for block in scorer.blocks_of(*where)}
    assert set(found) == expected


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("", "holds no rows", None),
        ("seconds,offset,length\n", "holds no rows", None),
        ("1,2\n", "2 columns", 1),
        ("1,2,3,4\n", "4 columns", 1),
        ("a,0,1\n", "'a' is not a number", 1),
        ("1,0,1\nseconds,offset,length\n", "'seconds' is not a number", 2),
        ("1,0,1\n2,x,1\n", "'x' is not a whole number", 2),
        ("1,0,1\n2,0.5,1\n", "'0.5' is not a whole number", 2),
        ("1,0,1\n2,0,\n", "'' is not a whole number", 2),
        ("1,0,0\n", "0 bytes", 1),
        ("-1,0,1\n", "negative", 1),
        ("1,-5,1\n", "negative", 1),
        ("1,0,-1\n", "negative", 1),
        ("nan,0,1\n", "not finite", 1),
        ("inf,0,1\n", "not finite", 1),
        ("5,0,1\n4,0,1\n", "sort the file", 2),
        ("1,0,1\n1700000000,0,1\n", "not 1970", 2),
        ("1,1099511627776,1\n", "beyond the disk of 1.0 TiB", 1),
        ("1,1099511627775,2\n", "beyond the disk", 1),
        ("\x00\x01,2,3\n", "not a", 1),
    ],
)
def test_a_bad_trace_is_refused(tmp_path: Path, text: str, reason: str, line: int | None) -> None:
    path = written(tmp_path / "t.csv", text)
    with pytest.raises(errors.Usage) as caught:
        trace.read(path, TIB)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.facts.get("line") == line


def test_what_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "t.csv", tmp_path / "none", tmp_path):
        with pytest.raises(errors.Usage, match=str(path)):
            trace.read(path)


def test_blocks_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Usage, match="beyond the disk"):
        trace.read(written(tmp_path / "t.csv", f"1,{1 << 60},1\n"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no rows"),
        ("0,1.5\n", "greater than 1"),
        ("0,-0.5\n", "negative"),
        ("0,much\n", "not a number"),
        ("5,0\n1,0\n", "sort the file"),
        ("1700000000,0\n", "not 1970"),
        ("0,0,0\n", "3 columns"),
    ],
)
def test_a_bad_load_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(errors.Usage, match=reason):
        load.read(written(tmp_path / "l.csv", text), 100.0)


def test_a_load_is_a_step_function(tmp_path: Path) -> None:
    found = load.read(written(tmp_path / "l.csv", "seconds,load\n100,0.5\n200,1\n700,0.25\n"), 1200.0)
    assert [found.at(moment) for moment in (0, 99, 100, 199, 200, 900)] == [0, 0, 0.5, 0.5, 1, 0.25]
    assert [found.next_change(moment) for moment in (0, 100, 700)] == [100, 200, float("inf")]
    assert list(found.usual(1200.0).figures) == pytest.approx([150 / 300, 1, 150 / 300, 0.25])
    assert found.usual(899.0).figures == found.usual(1200.0).figures[:2]


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.25, 0.2), (0.8, 0.2), (0.81, 0.9), (1.0, 0.9)])
def test_percentiles_of_a_load_are_of_time(share: float, value: float) -> None:
    found = load.Load([100.0, 800.0], [0.2, 0.9], 1000.0)
    assert found.percentile(share) == value


def test_without_a_file_the_load_is_what_is_written_in_five_minutes() -> None:
    found = load.of_trace(trace.of([(0.0, 0, 100), (299.0, 0, 100), (610.0, 0, 400)]), 1200.0)
    assert [found.at(moment) for moment in (0, 299, 300, 600, 899, 900, 1199)] == [0.5, 0.5, 0, 1, 1, 0, 0]
