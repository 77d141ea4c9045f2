"""Whether a VM is protected, and if not, why: a function of what is known of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from headstart.server import vms
from headstart.server.hosts import AWAY_SECONDS
from headstart.server.pages import words
from headstart.server.pages.doubts import Doubt
from headstart.server.pages.view import Doing, View
from headstart.server.vms import BACKS_UP, LATE_SECONDS


class Level(enum.StrEnum):
    """Each is the name of an icon and of a class of styles, too; in the order of concern."""

    BAD = "bad"
    WARN = "warn"
    OFF = "off"
    GOOD = "good"


#: Of each level, for people.
MEANING = {
    Level.GOOD: "Protected",
    Level.WARN: "At risk",
    Level.BAD: "Not protected",
    Level.OFF: "No policy",
}
ORDER = {level: number for number, level in enumerate(Level)}
_UNTOLD = "Its host does not tell of it any longer. If it is gone, remove it here."


@dataclass(frozen=True, slots=True)
class Known:
    """Of a VM: as ``vms`` and ``hosts`` have it. Moments in seconds since 1970. ``seen``: when its host told of it, and
    ``host_seen`` when that told anything, last."""

    view: View | None
    seen: float
    host_seen: float | None
    last_success: float | None
    #: Of the newest backup, where that failed.
    last_error: str | None
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    level: Level
    title: str
    why: str = ""


def away_since(host_seen: float | None, now: float) -> float | None:
    """Seconds; None: the host is there."""
    if host_seen is None:
        return float("inf")
    return now - host_seen if now - host_seen > AWAY_SECONDS else None


def of(known: Known, now: float) -> Standing:
    told = known.view
    if told is None:
        return _without_policy(known, now)
    away, untold = away_since(known.host_seen, now), vms.is_untold(known.seen, known.host_seen)
    doing = None if away is not None or untold else told.doing
    late = told.due is not None and told.due < now - LATE_SECONDS
    if late and doing is not None and vms.excuses(doing.verb, doing.since, now):
        late = False
    if away is not None and (late or known.last_success is None):
        return Standing(Level.BAD, "Host away", f"{_absent(away)} {_overdue(told, now)}".rstrip())
    if told.state == "paused":
        return Standing(Level.BAD, "Paused", "No backups until somebody resumes it.")
    if known.last_error is not None:
        return Standing(Level.BAD, "Backup failed", known.last_error or "The host did not say why.")
    if known.last_success is None:
        return _first(told, doing, now)
    if late:
        reason = _UNTOLD if untold else _under_way(doing, now) or _host_says(told)
        return Standing(Level.BAD, "Overdue", f"{_overdue(told, now)} {reason}".rstrip())
    if untold:
        return Standing(Level.WARN, "Not told of", _UNTOLD)
    if away is not None:
        return Standing(Level.WARN, "Host away", f"{_absent(away)} It goes on by itself if it runs.")
    return _doubted(known) or _protected(told, now)


def _without_policy(known: Known, now: float) -> Standing:
    why = "No policy names it."
    if known.last_success is not None:
        why += f" Its last backup is {words.rough(max(0.0, now - known.last_success))} old."
    return Standing(Level.OFF, "No policy", why)


def _doubted(known: Known) -> Standing | None:
    """There are backups, and something was found out of them."""
    return None if known.doubt is None else Standing(Level.WARN, known.doubt.title, known.doubt.why)


def _protected(told: View, now: float) -> Standing:
    if told.state in ("failed", "hangs", "unreachable"):
        titles = {"failed": "Trying again", "hangs": "Hangs", "unreachable": "VM unreachable"}
        return Standing(Level.WARN, titles[told.state], told.reason)
    if told.due is None:
        return Standing(Level.WARN, "Nothing to come", "Its schedule has no further backup.")
    if told.missed:
        return Standing(Level.WARN, "Missed", "A backup was missed. The host makes up for it.")
    if told.warnings:
        return Standing(Level.WARN, "Will not fit", "; ".join(told.warnings))
    return Standing(Level.GOOD, "Protected", told.reason)


def _first(told: View, doing: Doing | None, now: float) -> Standing:
    if doing is not None and doing.verb in BACKS_UP:
        return Standing(Level.WARN, "First backup", "Its first backup is under way.")
    if told.due is None:
        return Standing(Level.BAD, "No backup yet", "Its schedule has none to come.")
    when = f"The first one is due in {words.rough(told.due - now)}." if told.due > now else "The first one is due now."
    return Standing(Level.BAD, "No backup yet", f"{when} {_host_says(told)}".rstrip())


def _host_says(told: View) -> str:
    return f"The host says: {told.reason}." if told.reason and told.state in ("failed", "hangs", "unreachable") else ""


def _under_way(doing: Doing | None, now: float) -> str:
    """Too long to be an excuse."""
    if doing is None or doing.verb not in BACKS_UP:
        return ""
    return f"One is under way for {words.rough(max(0.0, now - doing.since))}."


def _absent(seconds: float) -> str:
    if seconds == float("inf"):
        return "Its host was never heard of."
    return f"Its host was last heard of {words.rough(seconds)} ago."


def _overdue(told: View, now: float) -> str:
    if told.due is None or told.due >= now:
        return ""
    return f"A backup is due since {words.rough(now - told.due)}."
