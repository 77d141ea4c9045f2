"""Which snapshots are kept, and why: a pure function of their points in time.

Rules count back from the newest snapshot of a VM, not from now: a VM that is not backed up any longer loses nothing.
Of each hour, day, week (ISO 8601), month and year the newest is kept, by the clock on the wall of a time zone. As long
as a rule has not found its number, it keeps the oldest snapshot as well, which stands for what will be older one day.
(So does restic, whose users will look for the same.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

_SPAN = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)d)?(?:(\d+)h)?")


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time by the calendar: ``months`` and ``days`` are as long as they are just then."""

    months: int = 0
    days: int = 0
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.months or self.days or self.seconds)

    def before(self, moment: datetime) -> datetime:
        """So long before ``moment``; the last day of a month where it has not so many."""
        year, month = divmod(moment.year * 12 + moment.month - 1 - self.months, 12)
        if year < 1:
            return datetime.min.replace(tzinfo=moment.tzinfo)
        first = moment.replace(year=year, month=month + 1, day=1)
        following = (first + timedelta(days=32)).replace(day=1)
        last = (following - timedelta(days=1)).day
        try:
            return first.replace(day=min(moment.day, last)) - timedelta(days=self.days, seconds=self.seconds)
        except OverflowError:
            return datetime.min.replace(tzinfo=moment.tzinfo)


def span(text: str) -> Span:
    """``2y5m7d3h``: years, months, days and hours, in this order, each of which may be left out. ``ValueError``."""
    found = _SPAN.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"must be a time like 2y5m7d3h (years, months, days, hours), not {text!r}")
    years, months, days, hours = (int(part or 0) for part in found.groups())
    wanted = Span(12 * years + months, days, 3600.0 * hours)
    if not wanted or wanted.months > 12 * 9999 or wanted.days > 4_000_000 or hours > 100_000_000:
        raise ValueError(f"must be longer than nothing, and at most 9999y, not {text!r}")
    return wanted


@dataclass(frozen=True, slots=True)
class Rules:
    """How many of the newest snapshots are kept, of the newest hours, days, ... that have one, and all of how long
    before the newest."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span = Span()

    def __bool__(self) -> bool:
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return any(counts) or bool(self.within)


NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot as far as it matters here. ``created`` in seconds since 1970, UTC."""

    id: str
    vm: str
    created: float
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """``reasons``: the rules that keep it, such as ``daily``."""

    id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the snapshots, oldest first by VM."""

    kept: tuple[Kept, ...]
    forgotten: tuple[str, ...]


PROTECTED = "protected"
#: Its point in time has not come yet, by this clock: whose clock is wrong cannot be told.
FUTURE = "in the future"

_Period = Callable[[datetime], object]
_PERIODS: Mapping[str, _Period] = {
    "hourly": lambda at: (at.date(), at.hour, at.utcoffset()),
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: at.year,
}


def decide(snapshots: Iterable[Candidate], rules: Rules, now: float, zone: tzinfo) -> Decision:
    """``rules`` hold for each VM by itself. Without any, nothing is forgotten. Protected snapshots, and those of the
    future, are kept beside the others and take nobody's place."""
    kept: list[Kept] = []
    forgotten: list[str] = []
    for _, of_vm in sorted(_by_vm(snapshots).items()):
        reasons = dict(_reasons(of_vm, rules, now, zone))
        for each in of_vm:
            if each.id in reasons:
                kept.append(Kept(each.id, reasons[each.id]))
            else:
                forgotten.append(each.id)
    return Decision(tuple(kept), tuple(forgotten))


def _by_vm(snapshots: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    found: dict[str, list[Candidate]] = {}
    for each in sorted(snapshots, key=lambda each: (each.created, each.id)):
        found.setdefault(each.vm, []).append(each)
    return found


def _reasons(of_vm: list[Candidate], rules: Rules, now: float, zone: tzinfo) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of each snapshot that is kept."""
    counted = [each for each in of_vm if not each.protected and each.created <= now]
    newest_first = [(each, datetime.fromtimestamp(each.created, zone)) for each in reversed(counted)]
    found: dict[str, list[str]] = {each.id: [] for each in of_vm}
    for rule, ids in _by_rule(newest_first, rules):
        for snapshot_id in ids:
            found[snapshot_id].append(rule)
    for each in of_vm:
        if each.protected:
            found[each.id].append(PROTECTED)
        elif each.created > now:
            found[each.id].append(FUTURE)
        elif not rules:
            found[each.id].append("no rule")
        if found[each.id]:
            yield each.id, tuple(found[each.id])


def _by_rule(newest_first: list[tuple[Candidate, datetime]], rules: Rules) -> Iterator[tuple[str, list[str]]]:
    if not newest_first:
        return
    yield "last", [each.id for each, _ in newest_first[: rules.last]]
    for rule, period in _PERIODS.items():
        yield rule, _of_periods(newest_first, period, getattr(rules, rule))
    if rules.within:
        since = rules.within.before(newest_first[0][1])
        yield "within", [each.id for each, at in newest_first if at >= since]


def _of_periods(newest_first: list[tuple[Candidate, datetime]], period: _Period, wanted: int) -> list[str]:
    """The newest of each of the newest periods that have one."""
    kept: list[str] = []
    last: object = None
    for each, at in newest_first:
        oldest = each is newest_first[-1][0]
        if len(kept) < wanted and (period(at) != last or oldest):
            kept.append(each.id)
            last = period(at)
    return kept
