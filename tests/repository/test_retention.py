"""Which snapshots are kept: golden files, and what holds for all rules. ``python -m tests.repository.test_retention``
writes the golden files anew."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.repository import retention
from headstart.repository.retention import NO_RULES, Candidate, Rules, Span

GOLDEN = Path(__file__).parent / "retention"
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 4, 1, tzinfo=UTC).timestamp()


def series(first: datetime, count: int, step: timedelta, vm: str = "web") -> list[Candidate]:
    moments = [first + number * step for number in range(count)]
    return [Candidate(f"{vm}{number}", vm, moment.timestamp()) for number, moment in enumerate(moments)]


#: Three and a half years of days; a week of hours over the end of summer time; a VM that ended long ago beside one that
#: goes on; bursts with long gaps.
DAYS = series(datetime(2022, 9, 15, 2, 30, tzinfo=UTC), 1270, timedelta(days=1))
HOURS = series(datetime(2025, 10, 23, 0, 10, tzinfo=UTC), 24 * 7, timedelta(hours=1))
TWO = [*series(datetime(2025, 1, 1, tzinfo=UTC), 20, timedelta(days=1), "old"), *DAYS[-40:]]
BURSTS = [
    replace(each, id=f"{month}-{each.id}")
    for month in (1, 2, 5, 12)
    for each in series(datetime(2025, month, 28, 23, 0, tzinfo=UTC), 6, timedelta(minutes=20))
]
LABELLED = [
    replace(each, protected=number % 10 == 3)
    for number, each in enumerate(series(datetime(2026, 3, 20, tzinfo=UTC), 30, timedelta(hours=12)))
]

CASES: dict[str, tuple[Sequence[Candidate], Rules, tzinfo]] = {
    "no-rules": (BURSTS, NO_RULES, UTC),
    "last": (BURSTS, Rules(last=5), UTC),
    "last-more-than-there-are": (BURSTS, Rules(last=1000), UTC),
    "hourly": (HOURS, Rules(hourly=30), UTC),
    "hourly-over-the-end-of-summer": (HOURS, Rules(hourly=100), BERLIN),
    "daily": (DAYS, Rules(daily=10), UTC),
    "daily-by-the-clock-on-the-wall": (HOURS, Rules(daily=4), BERLIN),
    "daily-with-gaps": (BURSTS, Rules(daily=3), UTC),
    "weekly": (DAYS, Rules(weekly=8), UTC),
    "monthly": (DAYS, Rules(monthly=12), UTC),
    "yearly-with-the-oldest": (DAYS, Rules(yearly=10), UTC),
    "grandfather": (DAYS, Rules(daily=7, weekly=5, monthly=12, yearly=3), UTC),
    "within": (DAYS, Rules(within=Span(months=1, days=3)), BERLIN),
    "within-hours": (HOURS, Rules(within=Span(seconds=5 * 3600)), UTC),
    "each-vm-by-itself": (TWO, Rules(daily=3, within=Span(days=5)), UTC),
    "protected-and-future": (LABELLED, Rules(last=2, daily=2), UTC),
}


def told(name: str) -> str:
    snapshots, rules, zone = CASES[name]
    decided = retention.decide(snapshots, rules, NOW, zone)
    reasons = {each.id: ", ".join(each.reasons) for each in decided.kept}
    lines = [
        f"{datetime.fromtimestamp(each.created, zone):%Y-%m-%d %a %H:%M %Z} {each.vm:4} {reasons[each.id]}"
        for each in sorted(snapshots, key=lambda each: (each.vm, each.created))
        if each.id in reasons
    ]
    return "\n".join([*lines, f"forgotten: {len(decided.forgotten)} of {len(snapshots)}", ""])


@pytest.mark.parametrize("name", CASES)
def test_what_is_kept_is_what_the_golden_files_say(name: str) -> None:
    assert told(name) == (GOLDEN / f"{name}.txt").read_text()


def test_every_golden_file_is_of_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == CASES.keys()


COUNTS = st.integers(0, 4)
RULES = st.builds(
    Rules, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.builds(Span, COUNTS, COUNTS, st.just(0.0))
).filter(bool)
MOMENTS = st.lists(st.integers(0, 4000), max_size=40, unique=True)


def candidates(hours: Sequence[int], protected: int = 0) -> list[Candidate]:
    return [Candidate(str(hour), "web", NOW - hour * 3571.0, hour < protected) for hour in hours]


@given(MOMENTS, RULES)
def test_the_newest_is_kept_and_each_is_decided_on_once(hours: Sequence[int], rules: Rules) -> None:
    found = candidates(hours)
    decided = retention.decide(found, rules, NOW, BERLIN)
    kept = [each.id for each in decided.kept]
    assert sorted([*kept, *decided.forgotten]) == sorted(each.id for each in found)
    assert not found or str(min(hours)) in kept


@given(MOMENTS, RULES)
def test_deciding_again_forgets_nothing_more(hours: Sequence[int], rules: Rules) -> None:
    found = candidates(hours)
    kept = {each.id for each in retention.decide(found, rules, NOW, BERLIN).kept}
    again = retention.decide([each for each in found if each.id in kept], rules, NOW, BERLIN)
    assert again.forgotten == ()


@given(MOMENTS, RULES, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]))
def test_a_larger_number_keeps_no_less(hours: Sequence[int], rules: Rules, which: str) -> None:
    found = candidates(hours)
    more = replace(rules, **{which: getattr(rules, which) + 1})
    kept, kept_more = (
        {each.id for each in retention.decide(found, chosen, NOW, BERLIN).kept} for chosen in (rules, more)
    )
    assert kept <= kept_more


@given(MOMENTS, RULES)
def test_what_is_protected_takes_nobody_s_place(hours: Sequence[int], rules: Rules) -> None:
    marked = candidates(hours, protected=200)
    others = [each for each in marked if not each.protected]
    decided = retention.decide(marked, rules, NOW, BERLIN)
    alone = retention.decide(others, rules, NOW, BERLIN)
    assert set(decided.forgotten) == set(alone.forgotten)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("2y5m7d3h", Span(29, 7, 10800.0)),
        ("1h", Span(0, 0, 3600.0)),
        ("14d", Span(0, 14, 0.0)),
        ("1y", Span(12, 0, 0.0)),
    ],
)
def test_spans_are_read_as_people_write_them(text: str, span: Span) -> None:
    assert retention.span(text) == span


@pytest.mark.parametrize("text", ["", "0d", "3h2d", "5", "d", "-1d", "1.5d", "1w", "99999999999999y", "1d "])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        retention.span(text)


def test_a_month_before_its_end() -> None:
    march = datetime(2024, 3, 31, 12, tzinfo=BERLIN)
    assert Span(months=1).before(march) == datetime(2024, 2, 29, 12, tzinfo=BERLIN)
    assert Span(months=12 * 5000).before(march).year == 1


if __name__ == "__main__":
    for old in GOLDEN.iterdir():
        old.unlink()
    for case in CASES:
        (GOLDEN / f"{case}.txt").write_text(told(case))
