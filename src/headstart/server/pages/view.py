"""What a host said of a VM (``host/view``), read with care: a host may be of another version, or not what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.host.account import number

_MOST_WARNINGS = 10
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class Doing:
    """``done`` of ``total`` in whatever it counts; ``total`` 0: not known."""

    verb: str
    since: float
    what: str
    done: float
    total: float


@dataclass(frozen=True, slots=True)
class View:
    """``due``: seconds since 1970, None: no backup is to come. ``rate``: bytes a second that copying may take now."""

    policy: str
    state: str
    reason: str
    due: float | None
    missed: bool
    remaining: float
    deferred: float
    load: float | None
    low: float | None
    high: float | None
    rate: float
    warnings: tuple[str, ...]
    doing: Doing | None
    #: Read when it is asked for: a page shows few of all VMs.
    forecast: Mapping[str, Any]

    @property
    def residue(self) -> Range | None:
        return _range(self.forecast.get("residue_bytes"))

    @property
    def window(self) -> Range | None:
        return _range(self.forecast.get("window_seconds"))


def of(told: object) -> View | None:
    """None: no policy has the VM."""
    if not isinstance(told, dict) or not told:
        return None
    marks, forecast = _table(told.get("marks")), _table(told.get("forecast"))
    warnings = forecast.get("warnings")
    return View(
        _text(told.get("policy")) or _UNKNOWN,
        _text(told.get("state")) or _UNKNOWN,
        _text(told.get("reason")),
        number(told.get("due")),
        told.get("missed") is True,
        number(told.get("remaining_bytes")) or 0.0,
        number(told.get("deferred_bytes")) or 0.0,
        number(told.get("load")),
        number(marks.get("low")),
        number(marks.get("high")),
        number(told.get("rate")) or 0.0,
        tuple(map(_text, warnings[:_MOST_WARNINGS])) if isinstance(warnings, list) else (),
        _doing(told.get("doing")),
        forecast,
    )


def _doing(told: object) -> Doing | None:
    found = _table(told)
    verb, since = _text(found.get("verb")), number(found.get("since"))
    if not verb or since is None:
        return None
    return Doing(
        verb, since, _text(found.get("what")), number(found.get("done")) or 0.0, number(found.get("total")) or 0.0
    )


def _range(told: object) -> Range | None:
    found = _table(told)
    low, likely, high = (number(found.get(name)) for name in ("low", "likely", "high"))
    return None if low is None or likely is None or high is None else Range(low, likely, high)


def _table(told: object) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}


def _text(told: object) -> str:
    return told if isinstance(told, str) else ""
