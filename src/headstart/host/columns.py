"""The minutes of a time as columns of a picture: not more of them than it has room for, and gaps that stay gaps."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headstart.host.account import number
from headstart.state.series import MINUTE, Minute

#: More are not seen. A day has a column for two minutes.
MOST = 720


@dataclass(frozen=True, slots=True)
class Column:
    """From ``begin`` to ``end``, seconds since 1970. Means of load, latency and ``rate`` (bytes a second); bytes at
    its end; the state that most of its minutes had."""

    begin: float
    end: float
    load: float | None
    latency: float | None
    state: str
    rate: float
    remaining: float
    deferred: float


def stretches(minutes: Iterable[Minute], since: float, until: float) -> list[list[Column]]:
    """Ascending; between two of them nothing was measured. Minutes in any order; of two at a moment the last counts."""
    by_moment = {each.moment: each for each in minutes if since - MINUTE < each.moment < until}
    step = MINUTE * max(1, math.ceil((until - since) / MINUTE / MOST))
    ascending = (by_moment[moment] for moment in sorted(by_moment))
    columns = [_column(list(group)) for _, group in itertools.groupby(ascending, lambda each: each.moment // step)]
    found: list[list[Column]] = []
    for column in columns:
        if found and column.begin <= found[-1][-1].end:
            found[-1].append(column)
        else:
            found.append([column])
    return found


def _column(minutes: Sequence[Minute]) -> Column:
    last = minutes[-1]
    begin, end = minutes[0].moment, last.moment + MINUTE
    remaining = number(last.remaining) or 0.0
    return Column(
        begin,
        end,
        _mean(each.load for each in minutes),
        _mean(each.latency for each in minutes),
        Counter(each.state for each in minutes).most_common(1)[0][0],
        sum(number(each.copied) or 0.0 for each in minutes) / (end - begin),
        remaining,
        min(number(last.deferred) or 0.0, remaining),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [each for each in map(number, values) if each is not None]
    return sum(known) / len(known) if known else None


def gaps(found: Sequence[Sequence[Column]], since: float, until: float) -> list[tuple[float, float]]:
    """Of more than two minutes: the newest minute is not over, and one may be lost to a look that took long."""
    ends = [since, *(each[-1].end for each in found)]
    begins = [*(each[0].begin for each in found), until]
    return [(end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end > 2 * MINUTE]


def known(columns: Sequence[Column], value: Callable[[Column], float | None]) -> list[list[Column]]:
    """The parts in which a value is known."""
    groups = itertools.groupby(columns, lambda column: value(column) is not None)
    return [list(group) for is_known, group in groups if is_known]


def states(columns: Sequence[Column]) -> list[tuple[float, float, str]]:
    """Begin, end and state, as long as it was the same."""
    groups = (list(group) for _, group in itertools.groupby(columns, lambda column: column.state))
    return [(group[0].begin, group[-1].end, group[0].state) for group in groups]
