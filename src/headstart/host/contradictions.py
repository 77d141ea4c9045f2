"""What cannot be meant although each key is right by itself. Functions of one policy; paths are inside of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from headstart import units
from headstart.host import calendar, validation
from headstart.host.locate import Path
from headstart.host.policy import WEEK_MINUTES, Window
from headstart.host.tables import LimitTable, PolicyTable
from headstart.host.validation import Wrong
from headstart.restore.rehearsing.signs import Awaited

Contradictions = Iterator[tuple[Path, str]]
#: No other key depends on these.
_ALONE = (("schedule", "timezone"), ("schedule", "missed"), ("load", "latency"))


def find(table: PolicyTable, now: datetime, *, written: bool) -> list[tuple[Path, str]]:
    """``written``: just now, by somebody who mends it. Else what ``passed`` tells is no mistake."""
    checks: tuple[Callable[[PolicyTable], Contradictions], ...] = (_load, _limits, _transports, _rehearsal)
    found = [*_schedule(table, now), *(_pace(table, now) if written else ())]
    return found + [each for check in checks for each in check(table)]


def find_beside(
    wrong: Sequence[Wrong], table: PolicyTable | None, value: object, now: datetime, *, written: bool
) -> list[tuple[Path, str]]:
    """Also in a table that is wrong elsewhere: what contradicts itself apart from that. ``written`` as ``find``."""
    doubtful = {each.path[0] for each in wrong if each.path and not each.unknown and each.path[:2] not in _ALONE}
    if table is None and isinstance(value, dict):
        rest = validation.without(value, [each.path for each in wrong])
        if "schedule" in doubtful:
            doubtful.add("head_start")
            rest |= {"schedule": {"calendar": "daily"}}
        table, _ = validation.validate(PolicyTable, rest)
    found = [] if table is None else find(table, now, written=written)
    return [(path, message) for path, message in found if path[0] not in doubtful]


def passed(table: PolicyTable, now: datetime, *, written: bool) -> Contradictions:
    """What may have been right once, and is no mistake: time alone must not take away what else is said."""
    for expression, last in _ended(table, now):
        if last is not None:
            said = f'"{expression}" is not due any more: it came for the last time on {last:%Y-%m-%d %H:%M}'
            yield ("schedule", "calendar"), said
    if not written:
        yield from _pace(table, now)


def _schedule(table: PolicyTable, now: datetime) -> Contradictions:
    for expression, last in _ended(table, now):
        if last is None:
            yield ("schedule", "calendar"), f'"{expression}" can never be due: it never comes'


def _ended(table: PolicyTable, now: datetime) -> Iterator[tuple[str, datetime | None]]:
    """Expressions that do not come again, and when they came last."""
    schedule = table.schedule.value()
    for expression in table.schedule.calendar:
        one = type(schedule)((expression,), schedule.zone)
        if calendar.following(one, now) is None:
            yield expression, calendar.previous(one, now)


def _rehearsal(table: PolicyTable) -> Contradictions:
    found = table.rehearsal
    if found is None:
        return
    if found.pattern and found.wait_for not in (None, Awaited.PATTERN):
        yield ("rehearsal", "wait_for"), "means nothing beside pattern: leave one of them out"
    if found.wait_for is Awaited.PATTERN and not found.pattern:
        yield ("rehearsal", "wait_for"), "needs pattern as well: say which words"


def _pace(table: PolicyTable, now: datetime) -> Contradictions:
    """Against the time between two backups; of one backup alone there is nothing to say."""
    shortest, longest = calendar.gaps(table.schedule.value(), now)
    if math.isinf(longest):
        return
    ahead = table.head_start
    between = f"the time between two backups ({units.format_seconds(longest)} at most)"
    if table.schedule.random_delay >= shortest:
        least = f"the time between two backups ({units.format_seconds(shortest)} at least)"
        yield ("schedule", "random_delay"), f"must be shorter than {least}: a backup would wait past the next one"
    if "interval" in ahead.model_fields_set and ahead.transports and ahead.interval > longest:
        yield ("head_start", "interval"), f"is longer than {between}: there would be one round at most"
    if ahead.begin_before is not None and ahead.begin_before > longest:
        yield ("head_start", "begin_before"), f"is longer than {between}: leave it out to copy ahead at any time"


def _transports(table: PolicyTable) -> Contradictions:
    """Without transports nothing is copied ahead, and nothing can be said about it."""
    ahead = table.head_start
    if not ahead.transports:
        for key in sorted(ahead.model_fields_set & {"begin_before", "interval"}):
            yield ("head_start", key), "says when to copy ahead, but transports = [] says that nothing is"
    elif _never(table.limits):
        yield (
            ("limits",),
            "allow nothing to be copied ahead at any time: write transports = [] in head_start if that is meant",
        )


def _load(table: PolicyTable) -> Contradictions:
    load = table.load
    for key, other in (("low", "high"), ("high", "low")):
        if getattr(load, key) is not None and getattr(load, other) is None:
            yield ("load", key), f"needs {other} as well: the two stand together, or neither"
        relative = f"{key}_percentile"
        if getattr(load, key) is not None and relative in load.model_fields_set:
            yield ("load", relative), f"means nothing beside {key}, which is absolute: leave one of them out"
    if load.low is not None and load.high is not None and load.low >= load.high:
        yield ("load", "low"), f"must be less than high, but {load.low:g} is not less than {load.high:g}"
    if load.low_percentile >= load.high_percentile:
        key = "low_percentile" if "low_percentile" in load.model_fields_set else "high_percentile"
        values = f"{load.low_percentile:g} is not less than {load.high_percentile:g}"
        yield ("load", key), f"low_percentile must be less than high_percentile, but {values}"


def _limits(table: PolicyTable) -> Contradictions:
    defaults = [number for number, each in enumerate(table.limits) if each.is_default]
    for number in defaults[1:]:
        yield ("limits", number), "is the second one without times; one limit at most holds outside of all others"
    for number, each in enumerate(table.limits):
        if (each.begin is None) != (each.until is None):
            yield ("limits", number), "needs both from and until, or neither"
        elif each.begin is not None and each.begin == each.until:
            yield ("limits", number), "from and until are the same: leave both out for whole days"
    yield from _overlaps(table.limits)


def _overlaps(limits: list[LimitTable]) -> Contradictions:
    windows = [(number, each.value()) for number, each in enumerate(limits) if not each.is_default]
    minutes = {number: _minutes(window) for number, window in windows}
    for place, (number, window) in enumerate(windows):
        for earlier, other in windows[:place]:
            if window.rate != other.rate and (both := minutes[number] & minutes[earlier]):
                when = f"{_shown(min(both))}"
                yield ("limits", number), f"overlaps limits[{earlier}], which has another rate (both hold on {when})"


def _minutes(window: Window) -> set[int]:
    return {minute % WEEK_MINUTES for span in window.spans() for minute in span}


def _shown(minute: int) -> str:
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"{days[minute // 1440]} at {minute % 1440 // 60:02}:{minute % 60:02}"


def _never(limits: list[LimitTable]) -> bool:
    """Whether the limit is zero at every minute of the week."""
    windows = [each.value() for each in limits if not each.is_default]
    if any(window.rate != 0 for window in windows):
        return False
    if any(each.is_default and each.rate == 0 for each in limits):
        return True
    covered: set[int] = set()
    return len(covered.union(*map(_minutes, windows))) == WEEK_MINUTES
