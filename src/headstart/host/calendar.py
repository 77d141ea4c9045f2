"""When a schedule comes: systemd's calendar expressions, the zone's clock changes, delays, and what was missed.

::

    clock set forward    a time that the clock leaves out is when it does so: no day is without its backup
    clock set back       a time that comes twice counts the first time; both times if the expression names every hour

Systemd leaves out the former and the second of the latter. Everything here is a function of values.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from oncalendar import BaseIterator, OnCalendarError

from headstart.host.policy import Schedule

#: A backup counts for the scheduled moment that comes this soon after it: clocks are corrected by seconds all the
#: time. At most a quarter of the way to it.
EARLY_SECONDS = 60.0
EARLY_SHARE = 0.25
#: No clock change is longer.
_LONGEST_CHANGE = timedelta(hours=3)
_HOURS = 24
_FIRST_YEAR = datetime(1970, 1, 1)
#: Moments that are walked past one by one, before halving is quicker.
_STEPS = 16
#: Gaps of a schedule that are looked at: a year of days and more.
_GAPS = 500


@dataclass(frozen=True, slots=True)
class Due:
    """The next backup: ``at`` is when to begin, in seconds since 1970, and may have passed. ``moment`` is the scheduled
    moment that it is for. ``missed``: that one passed while nobody watched. A schedule that has ended is due at
    infinity."""

    at: float
    missed: bool = False
    moment: float = math.inf


def check(expression: str) -> str:
    """Why it is no calendar expression; empty: it is one."""
    try:
        BaseIterator(expression, _FIRST_YEAR)
    except OnCalendarError as error:
        return f"{error}"[:1].lower() + f"{error}"[1:]
    return ""


def following(schedule: Schedule, moment: datetime) -> datetime | None:
    """The first scheduled moment after this one, without the random delay; None: there is none any more."""
    return _shown(schedule, _next(schedule, moment.timestamp()))


def previous(schedule: Schedule, moment: datetime) -> datetime | None:
    """The last scheduled moment up to this one, which counts."""
    return _shown(schedule, _last(schedule, moment.timestamp()))


def period(schedule: Schedule, moment: datetime) -> float | None:
    """Seconds between the scheduled moments before and after this one."""
    return _period(schedule, moment.timestamp())


def gaps(schedule: Schedule, moment: datetime) -> tuple[float, float]:
    """The shortest and the longest time between two backups from now on, by a clock that nobody sets. Infinity where
    there are not two."""
    start = moment.astimezone(schedule.zone).replace(tzinfo=None)
    walls = heapq.merge(*(BaseIterator(expression, start) for expression in schedule.calendar))
    found = [
        (later - earlier).total_seconds()
        for earlier, later in itertools.pairwise(itertools.islice(walls, _GAPS))
        if later != earlier
    ]
    return (min(found), max(found)) if found else (math.inf, math.inf)


def delay(schedule: Schedule, vm: str, moment: float) -> float:
    """Of this VM at this moment always the same, so that a restart does not move it."""
    digest = hashlib.blake2b(f"{vm}\0{moment:.0f}".encode(), digest_size=8).digest()
    return float(math.floor(schedule.random_delay * int.from_bytes(digest, "big") / 2**64))


def due(schedule: Schedule, vm: str, last_completed: float | None, now: float, watched: float = 0.0) -> Due:
    """The next backup of a VM. It is due when ``at <= now``, and stays so until ``last_completed`` tells of it.

    ``last_completed``: the point in time of the last backup, or the moment it was for, whichever is later; without a
    backup when the VM was added. ``watched``: for how many seconds until now somebody has been there to begin
    backups, by a clock that nobody sets; what came due earlier was missed. Several missed ones are one backup.

    A clock that was set: a backup counts for the moments up to its own time, also where that lies ahead now,
    but for one moment to come at most. What lies further ahead is of a clock that was wrong, and tells nothing.
    """
    since = _since(schedule, last_completed, now, watched)
    upcoming, newest = None, _last(schedule, now)
    while newest is not None and newest > since and newest + delay(schedule, vm, newest) > now:
        upcoming, newest = newest, _last(schedule, newest - 1)
    if newest is not None and newest > since:
        at = newest + delay(schedule, vm, newest)
        if at >= now - watched:
            return Due(at, False, newest)
        if schedule.missed:
            return Due(now, True, newest)
    if upcoming is None:
        upcoming = _next(schedule, max(since, now))
    return Due(math.inf) if upcoming is None else Due(upcoming + delay(schedule, vm, upcoming), False, upcoming)


def owed(
    found: Due, schedule: Schedule, vm: str, last_completed: float | None, now: float, watched: float = 0.0
) -> float:
    """Since when a backup is owed: when the oldest of those that did not come was to begin. As ``found``, which ``due``
    told of the same, where none is. What is late is seen by this one: the newest of an hourly schedule is never an hour
    old."""
    if found.at > now:
        return found.at
    since = _since(schedule, last_completed, now, watched)
    if not schedule.missed:
        since = max(since, math.ceil(now - watched) - 1.0)
    oldest = _next(schedule, since) if math.isfinite(since) else None
    moment = found.moment if oldest is None else oldest
    return min(found.at, moment + delay(schedule, vm, moment))


def _since(schedule: Schedule, last_completed: float | None, now: float, watched: float) -> float:
    """Scheduled moments after this one want a backup."""
    unknown = math.ceil(now - watched) - 1.0
    if last_completed is None:
        return unknown
    served = last_completed + _early(schedule, last_completed)
    if last_completed > now:
        upcoming, latest = _next(schedule, now), _last(schedule, served)
        if upcoming is not None and latest is not None and latest > upcoming:
            return -math.inf if schedule.missed else unknown
    return served


def _early(schedule: Schedule, seconds: float) -> float:
    length = _period(schedule, seconds)
    return EARLY_SECONDS if length is None else min(EARLY_SECONDS, EARLY_SHARE * length)


def _period(schedule: Schedule, seconds: float) -> float | None:
    before, after = _last(schedule, seconds), _next(schedule, seconds)
    return None if before is None or after is None else float(after - before)


def _shown(schedule: Schedule, seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, schedule.zone)


def _last(schedule: Schedule, seconds: float) -> int | None:
    """The calendar only goes forward, so the search begins earlier and earlier."""
    end = math.floor(seconds)
    for power in itertools.count():
        # One schedule has a moment each minute, another one each year.
        start = max(end - 60 * 8**power, -1)
        found = _next(schedule, start)
        if found is not None and found <= end:
            return _last_from(schedule, found, end)
        if start == -1:
            return None
    raise AssertionError("the search comes to 1970")


def _last_from(schedule: Schedule, moment: int, end: int) -> int:
    """The last one not later than ``end``; ``moment`` is one of these."""
    for _ in range(_STEPS):
        later = _next(schedule, moment)
        if later is None or later > end:
            return moment
        moment = later

    def too_near(start: int) -> bool:
        found = _next(schedule, start)
        return found is None or found > end

    nearest = moment - 1 + bisect.bisect_left(range(moment, end + 1), True, key=too_near)
    return _next(schedule, nearest) or moment


def _next(schedule: Schedule, seconds: float) -> int | None:
    found = (_next_of(expression, schedule.zone, seconds) for expression in schedule.calendar)
    return min((each for each in found if each is not None), default=None)


def _next_of(expression: str, zone: tzinfo, seconds: float) -> int | None:
    """The first moment after ``seconds``."""
    start = datetime.fromtimestamp(math.floor(max(seconds, 0)), zone).replace(tzinfo=None)
    # What begins in 1970 is found from the second before it.
    start -= timedelta(seconds=1)
    moments = [_once(expression, zone, start)]
    if _names_every_hour(expression):
        ambiguous = _seconds(start, zone, 0) != _seconds(start, zone, 1)
        again = start - _LONGEST_CHANGE if ambiguous else start
        moments = [_each_hour(expression, zone, start, 0), _each_hour(expression, zone, again, 1)]
    # Each of them is in order, and begins at or before what is looked for.
    found = (next((moment for moment in each if moment > seconds), None) for each in moments)
    return min((each for each in found if each is not None), default=None)


@functools.lru_cache
def _names_every_hour(expression: str) -> bool:
    return len(BaseIterator(expression, _FIRST_YEAR).hours) == _HOURS


def _once(expression: str, zone: tzinfo, start: datetime) -> Iterator[int]:
    """Every time on the wall once."""
    for wall in BaseIterator(expression, start):
        moment = _seconds(wall, zone, 0)
        yield moment if _wall(moment, zone) == wall else _change(wall, zone)


def _each_hour(expression: str, zone: tzinfo, start: datetime, fold: int) -> Iterator[int]:
    """What the clock leaves out is left out: another one follows within the hour."""
    for wall in BaseIterator(expression, start):
        moment = _seconds(wall, zone, fold)
        if _wall(moment, zone) == wall:
            yield moment


def _change(wall: datetime, zone: tzinfo) -> int:
    """When the clock is set forward over this time."""
    earliest, latest = _seconds(wall, zone, 1), _seconds(wall, zone, 0)
    return earliest + bisect.bisect_left(range(earliest, latest), True, key=lambda at: _wall(at, zone) >= wall)


def _seconds(wall: datetime, zone: tzinfo, fold: int) -> int:
    return int(wall.replace(tzinfo=zone, fold=fold).timestamp())


def _wall(seconds: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).replace(tzinfo=None)
