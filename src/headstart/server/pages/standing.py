"""Whether a VM is protected, and if not, why: a function of what is known of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from headstart.server.hosts import AWAY_SECONDS
from headstart.server.pages import words
from headstart.server.pages.doubts import Doubt
from headstart.server.pages.view import View
from headstart.server.vms import LATE_SECONDS


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


@dataclass(frozen=True, slots=True)
class Known:
    """Of a VM: as ``vms`` and ``hosts`` have it. Moments in seconds since 1970."""

    view: View | None
    host_seen: float | None
    last_success: float | None
    last_failure: float | None
    last_error: str | None
    doubt: Doubt | None = None

    @property
    def failed(self) -> bool:
        """The newest backup did."""
        return self.last_failure is not None and (self.last_success is None or self.last_failure > self.last_success)


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
    away = away_since(known.host_seen, now)
    late = told.due is not None and told.due < now - LATE_SECONDS and not _backing_up(told)
    if away is not None and (late or known.last_success is None):
        return Standing(Level.BAD, "Host away", f"{_absent(away)} {_overdue(told, now)}".rstrip())
    if told.state == "paused":
        return Standing(Level.BAD, "Paused", "No backups until somebody resumes it.")
    if known.failed:
        return Standing(Level.BAD, "Backup failed", known.last_error or "The host did not say why.")
    if known.last_success is None:
        return _first(told, now)
    if late:
        return Standing(Level.BAD, "Overdue", f"{_overdue(told, now)} {_host_says(told)}".rstrip())
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


def _first(told: View, now: float) -> Standing:
    if _backing_up(told):
        return Standing(Level.WARN, "First backup", "Its first backup is under way.")
    if told.due is None:
        return Standing(Level.BAD, "No backup yet", "Its schedule has none to come.")
    when = f"The first one is due in {words.rough(told.due - now)}." if told.due > now else "The first one is due now."
    return Standing(Level.BAD, "No backup yet", f"{when} {_host_says(told)}".rstrip())


def _host_says(told: View) -> str:
    return f"The host says: {told.reason}." if told.reason and told.state in ("failed", "hangs", "unreachable") else ""


def _backing_up(told: View) -> bool:
    return told.doing is not None and told.doing.verb in ("backup", "publish")


def _absent(seconds: float) -> str:
    if seconds == float("inf"):
        return "Its host was never heard of."
    return f"Its host was last heard of {words.rough(seconds)} ago."


def _overdue(told: View, now: float) -> str:
    if told.due is None or told.due >= now:
        return ""
    return f"A backup is due since {words.rough(now - told.due)}."
