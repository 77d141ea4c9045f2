"""How durations, rates, times of day, days, shares and time zones are written. Each takes what stands in the file, and
raises ``ValueError`` with what is allowed."""

from __future__ import annotations

import datetime
import difflib
import re
import zoneinfo

import tzlocal

from headstart import units
from headstart.units import MIB

_SECONDS = {
    "ms": 0.001,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
}
_BYTES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": units.KIB,
    "MiB": units.MIB,
    "GiB": units.GIB,
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*/\s*s\s*")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

UNLIMITED = "unlimited"


def shown(value: object) -> str:
    """A value as it stands in the file, or nearly so."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return str(value)


def _refuse(wanted: str, value: object) -> ValueError:
    return ValueError(f"must be {wanted}, not {shown(value)}")


def duration(value: object) -> float:
    """Seconds."""
    refused = _refuse('a duration: text like "15min", "1h 30min" or "250ms" (units: ms, s, min, h, d, w)', value)
    if not isinstance(value, str) or not value.strip():
        raise refused
    seconds, place = 0.0, 0
    while place < len(value):
        part = _PART.match(value, place)
        if part is None or part[2] not in _SECONDS:
            raise refused
        seconds += float(part[1]) * _SECONDS[part[2]]
        place = part.end()
    return seconds


def positive_duration(value: object) -> float:
    found = duration(value)
    if found <= 0:
        raise _refuse("longer than nothing", value)
    return found


def rate(value: object) -> float:
    """Bytes per second."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] not in _BYTES:
        raise _refuse('0, or a rate: text like "40MiB/s" (units: B, kB, MB, GB, KiB, MiB, GiB)', value)
    return float(found[1]) * _BYTES[found[2]]


def store_rate(value: object) -> float:
    """At a lower one a single object would take so long that nobody could tell it from a store that hangs."""
    found = rate(value)
    if found < MIB:
        raise _refuse("a rate of at least 1MiB/s; leave it out for no limit", value)
    return found


def limit(value: object) -> float | None:
    """A rate, or None where nothing is limited."""
    if value == UNLIMITED:
        return None
    try:
        return rate(value)
    except ValueError as error:
        raise ValueError(str(error).replace("must be 0", f'must be 0, "{UNLIMITED}"', 1)) from None


def clock(value: object) -> int:
    """Minutes of the day; ``24:00`` is its end."""
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    minutes = int(found[1]) * 60 + int(found[2]) if found is not None and int(found[2]) < 60 else None
    if minutes is None or minutes > 24 * 60:
        raise _refuse('a time of day, from "00:00" to "24:00"', value)
    return minutes


def days(value: object) -> frozenset[int]:
    """``"Mon..Fri, Sun"``; 0 is Monday. A range may go over the end of the week."""
    refused = _refuse('days of the week: text like "Mon..Fri" or "Sat,Sun"', value)
    if not isinstance(value, str):
        raise refused
    found: set[int] = set()
    for part in value.split(","):
        names = [name.strip().lower() for name in part.split("..")]
        known = [_LONG_DAYS.index(name) if name in _LONG_DAYS else _DAYS.index(name) for name in names if _is_day(name)]
        if len(known) != len(names) or len(known) > 2:
            raise refused
        found |= {day % 7 for day in range(known[0], known[-1] + (7 if known[-1] < known[0] else 0) + 1)}
    return frozenset(found)


def _is_day(name: str) -> bool:
    return name in _DAYS or name in _LONG_DAYS


def share(value: object) -> float:
    return _number(value, 1, "a number from 0 to 1")


def percentile(value: object) -> float:
    return _number(value, 100, "a number from 0 to 100")


def _number(value: object, largest: float, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
        raise _refuse(wanted, value)
    return float(value)


def count(value: object) -> int:
    """A whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _refuse("a whole number, 1 or more", value)
    return value


def zone(value: object) -> datetime.tzinfo:
    """An IANA name; None: the host's."""
    if value is None:
        return _host_zone()
    if not isinstance(value, str):
        raise _refuse('the name of a time zone: text like "Europe/Berlin"', value)
    try:
        return zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(value, zoneinfo.available_timezones())
        raise ValueError(f"there is no time zone {shown(value)}{hint or '. Names are like Europe/Berlin'}") from None


def _host_zone() -> datetime.tzinfo:
    try:
        return tzlocal.reload_localzone()
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"name the time zone: this host's is not clear ({error})") from None


def nearest(name: str, known: object) -> str:
    """``; did you mean "..."?``, or nothing."""
    candidates = sorted(str(each) for each in known) if isinstance(known, set | frozenset | list | tuple) else []
    lower = {each.lower(): each for each in candidates}
    found = difflib.get_close_matches(name.lower(), lower, n=1)
    return f'; did you mean "{lower[found[0]]}"?' if found else ""
