"""The picture of a VM: valid whatever it is given, and what it shows."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.host import account, axes, columns, picture, svg
from headstart.host.axes import Scale, Times
from headstart.host.picture import History
from headstart.state.series import MINUTE, Minute
from headstart.state.values import Run
from headstart.units import MIB
from tests.host import example

SVG = "{http://www.w3.org/2000/svg}"
#: 2026-03-02, a Monday, 00:00 UTC.
SINCE = 1772409600
UNTIL = SINCE + 24 * 3600
BACKUP = {
    "snapshot": "0123456789abcdef",
    "created": SINCE + 3600.5,
    "window_seconds": 2.5,
    "disks": [{"changed_bytes": 8 * MIB, "residue_bytes": 3 * MIB}, {"changed_bytes": MIB, "residue_bytes": 0}],
}


def minute(number: int, **values: Any) -> Minute:
    return replace(Minute(SINCE + number * MINUTE, 0.5, None, "idle", 0, 0, 0), **values)


def ran(verb: str, begun: float, ended: float | None = None, **report: Any) -> Run:
    return Run(1, "web", verb, SINCE + begun, None if ended is None else SINCE + ended, report)


def history(minutes: Sequence[Minute] = (), runs: Sequence[Run] = ()) -> History:
    return History("web", SINCE, UNTIL, minutes, runs, UTC)


def drawn(given: History) -> ElementTree.Element:
    return ElementTree.fromstring(picture.draw(given).encode())


def told(root: ElementTree.Element, tag: str = "text") -> list[str]:
    return ["".join(each.itertext()) for each in root.iter(SVG + tag)]


def coloured(root: ElementTree.Element, colour: str) -> list[ElementTree.Element]:
    return [each for each in root.iter() if colour in (each.get("fill"), each.get("stroke"))]


# -- valid, whatever comes

numbers = st.one_of(
    st.none(), st.integers(-1, 3), st.integers(), st.floats(), st.sampled_from([2**63, 10**400, 1e308, 5e-324])
)
moments = st.one_of(st.integers(SINCE - 300, UNTIL + 300), st.floats(SINCE - 300, UNTIL + 300), numbers)
texts = st.one_of(
    st.sampled_from(["idle", "paced", "halted", "unreachable", "precopy", "backup", "publish"]), st.text()
)
anything = st.recursive(
    st.one_of(numbers, st.booleans(), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
disks = st.lists(
    st.one_of(anything, st.fixed_dictionaries({"changed_bytes": anything, "residue_bytes": anything})), max_size=3
)
reports = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("identified_bytes", "copied_bytes", "remaining_bytes", "window_seconds"), numbers),
        **dict.fromkeys(("created", "transport", "snapshot", "halted", "failures", "error"), anything),
        "disks": st.one_of(disks, anything),
    },
)
odd_minutes = st.builds(
    Minute, st.integers(SINCE - 300, UNTIL + 300), numbers, numbers, texts, numbers, numbers, numbers
)
odd_runs = st.builds(Run, st.integers(), texts, texts, moments, moments, reports)


@given(st.lists(odd_minutes, max_size=30), st.lists(odd_runs, max_size=10), texts, texts, st.sampled_from([1, 24, 192]))
@settings(max_examples=60, deadline=None)
def test_it_is_xml_and_has_only_numbers(minutes: list[Minute], runs: list[Run], vm: str, note: str, hours: int) -> None:
    given = History(vm, UNTIL - hours * 3600, UNTIL, minutes, runs, UTC, note)
    root = drawn(given)
    for each in root.iter():
        for name, value in each.attrib.items():
            if name in ("x", "y", "cx", "cy", "width", "height", "points", "d"):
                places = [float(found) for found in re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?|nan|inf", value)]
                assert all(math.isfinite(place) and -100 <= place <= 1200 for place in places), (name, value)


def test_texts_from_anywhere_are_escaped() -> None:
    wicked = "</text><script>alert('1')</script> & \x00\x1b[2J \ud800 ]]> --> \ufffe"
    runs = [ran("backup", 60, 90, error=wicked), ran("precopy", 10, 20, halted=wicked, identified_bytes=MIB)]
    root = drawn(replace(history([minute(1, state=wicked)], runs), vm=wicked, note=wicked))
    assert not list(root.iter(SVG + "script"))
    assert any("<script>alert('1')</script> & ??[2J" in title for title in told(root, "title"))


def test_a_long_text_is_cut() -> None:
    assert len(svg.escape("x" * 100_000)) == svg.LONGEST_TEXT


def test_it_begins_with_what_tells_that_it_is_ours() -> None:
    assert picture.draw(history()).startswith(picture.HEAD)
    assert picture.draw(history([minute(0)])).startswith(picture.HEAD)


# -- what it shows


def test_without_any_data_it_says_so() -> None:
    assert any("Nothing is known of this time" in each for each in told(drawn(history())))
    # What lies outside is no data.
    outside = history([minute(-100)], [ran("backup", -900, -800, **{**BACKUP, "created": SINCE - 890.0})])
    assert any("Nothing is known of this time" in each for each in told(drawn(outside)))


def test_runs_without_minutes_are_shown() -> None:
    found = told(drawn(history((), [ran("backup", 3600, 3700, **BACKUP)])))
    assert "2.5 s" in found and "3.0 MiB" in found
    assert found.count("nothing was measured") == 3


def test_one_minute_is_seen() -> None:
    root = drawn(history([minute(5, load=0.5, latency=0.002, state="paced", copied=MIB, remaining=MIB, deferred=MIB)]))
    assert {"paced", "latency of its writes"} <= set(told(root))
    assert "paced 00:05 to 00:06" in told(root, "title")


def test_gaps_stay_gaps() -> None:
    minutes = [minute(number) for number in (*range(10), *range(300, 310))]
    root = drawn(history(minutes))
    curves = [each for each in coloured(root, "#1f2933") if each.tag == SVG + "polyline"]
    assert len(curves) == 2
    ends = [[float(point.split(",")[0]) for point in each.attrib["points"].split()] for each in curves]
    assert ends[1][0] - ends[0][-1] > 150


def test_a_load_that_is_not_known_is_a_gap() -> None:
    minutes = [minute(number, load=None if 4 <= number < 8 else 0.5) for number in range(12)]
    curves = [each for each in coloured(drawn(history(minutes)), "#1f2933") if each.tag == SVG + "polyline"]
    assert len(curves) == 2


def test_minutes_in_any_order() -> None:
    minutes = [minute(number, load=number / 100) for number in range(60)]
    assert picture.draw(history(minutes)) == picture.draw(history([*minutes[30:], *minutes[:30]]))


def test_a_failed_backup_and_one_that_did_not_end() -> None:
    runs = [ran("backup", 3600, 3660, error="The point in time broke."), ran("backup", 40000)]
    root = drawn(history([minute(0)], runs))
    assert {"failed", "did not end"} <= set(told(root))
    assert "backup 01:00, failed: The point in time broke." in told(root, "title")
    assert any(each.endswith("no backup; 1 run failed") for each in told(root))


def test_what_a_round_found_is_a_bar() -> None:
    root = drawn(history((), [ran("precopy", 60, 90, identified_bytes=4 * MIB, copied_bytes=MIB, transport="agent")]))
    assert "precopy 00:01, dirty 4.0 MiB, copied 1.0 MiB, done" in told(root, "title")
    assert any("1 round copied 1.0 MiB ahead" in each for each in told(root))


def test_rounds_are_not_more_than_pixels() -> None:
    runs = [ran("precopy", second, second + 5, identified_bytes=second) for second in range(0, 86400, 10)]
    assert len(coloured(drawn(history((), runs)), "#33475b")) < 1000


def test_labels_do_not_cover_each_other() -> None:
    runs = [
        ran("backup", at, at + 9, window_seconds=1 + at * 7919 % 1000 / 1000, created=SINCE + at)
        for at in range(600, 86400, 600)
    ]
    labels = [each for each in drawn(history((), runs)).iter(SVG + "text") if each.get("class") == "label"]
    places = sorted({float(each.attrib["x"]) for each in labels})
    assert len(places) > 5
    assert all(right - left > 25 for left, right in itertools.pairwise(places))


def test_the_axis_is_in_the_zone_also_when_the_clock_is_changed() -> None:
    # 2026-03-29, 01:00 UTC: in Berlin 02:00 becomes 03:00.
    since = 1774738800
    berlin = ZoneInfo("Europe/Berlin")
    root = drawn(History("web", since, since + 24 * 3600, (), (), berlin))
    assert "web: 2026-03-29 00:00 to 2026-03-30 01:00 CEST" in told(root)
    assert "2026-03-30" in told(root)
    ticks = Times(since, since + 6 * 3600, 0, 100, berlin).ticks()
    assert [f"{each:%H:%M}" for each in ticks if each.minute == 0] == [
        "00:00",
        "01:00",
        "03:00",
        "04:00",
        "05:00",
        "06:00",
        "07:00",
    ]


def test_the_example_is_up_to_date() -> None:
    """``python -m tests.host.example`` draws it again."""
    assert example.PLACE.read_text(encoding="utf-8") == picture.draw(example.history())


# -- its parts


@pytest.mark.parametrize("most", [1e-3, 0.4, 1, 7, 99.9, 100, 1024, 3 * MIB, 2.0**63])
def test_ticks_are_round_and_within(most: float) -> None:
    for count in (2, 4):
        ticks = Scale(most, 100, 0).ticks(count, axes.BYTES)
        assert ticks[0] == (0, "0")
        assert 1 <= len(ticks) <= count + 1 and ticks[-1][0] <= most


@pytest.mark.parametrize(("least", "step"), [(0.03, 0.05), (0.5, 0.5), (1, 1), (1.1, 2), (9, 10), (10, 10), (450, 500)])
def test_round_steps(least: float, step: float) -> None:
    assert axes.round_step(least) == pytest.approx(step)


def test_columns_keep_the_bytes() -> None:
    minutes = [minute(number, copied=number) for number in range(1440)]
    (found,) = columns.stretches(minutes, SINCE, UNTIL)
    assert len(found) == columns.MOST
    assert sum(each.rate * (each.end - each.begin) for each in found) == pytest.approx(sum(range(1440)))


def test_more_is_not_put_off_than_remains() -> None:
    ((column,),) = columns.stretches([minute(0, remaining=5, deferred=9)], SINCE, UNTIL)
    assert (column.remaining, column.deferred) == (5, 5)


def test_an_account_of_a_backup() -> None:
    found = account.of(ran("backup", 3600, 3700, **BACKUP))
    assert (found.dirty, found.copied, found.window) == (9 * MIB, 3 * MIB, 2.5)
    assert found.moment == SINCE + 3600.5
    assert found.result == "snapshot 0123456789ab"


@pytest.mark.parametrize(
    ("run", "result"),
    [
        (ran("precopy", 0, 1, halted="paused by its owner"), "halted: paused by its owner"),
        (ran("precopy", 0, 1, halted=""), "done"),
        (ran("precopy", 0), "did not end"),
        (ran("backup", 0, 1, error="no"), "failed: no"),
        (ran("backup", 0, 1, error=""), "failed: "),
        (ran("backup", 0, 1, **{**BACKUP, "failures": ["a hook"]}), "incomplete: a hook"),
    ],
)
def test_how_a_run_ended(run: Run, result: str) -> None:
    assert account.of(run).result == result


def test_a_clock_put_back_during_a_run() -> None:
    found = account.of(ran("precopy", 100, 50))
    assert found.ended == found.begun
