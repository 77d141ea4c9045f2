"""Values as the pages show them."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from headstart import plain, units

_NONE = "\u2013"
_DAY = 86400.0


def size(count: float | None) -> str:
    return _NONE if count is None else units.format_bytes(round(count))


def seconds(told: float | None) -> str:
    """How long something took."""
    if told is None or not math.isfinite(told):
        return _NONE
    return f"{told / _DAY:.1f} days" if told >= 2 * _DAY else units.format_seconds(told)


def rough(told: float) -> str:
    """How long, to one unit: ``3 h``."""
    for length, name in ((_DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if told >= 1.5 * length:
            return f"{round(told / length)} {name}"
    return f"{int(told)} s"


def ago(moment: float | None, now: float) -> Markup:
    """``3 h ago`` or ``in 20 min``, with the moment itself for who points at it."""
    found = _date(moment)
    if moment is None or found is None:
        return Markup(_NONE)
    passed = now - moment
    told = "just now" if abs(passed) < 5 else f"{rough(passed)} ago" if passed > 0 else f"in {rough(-passed)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(_iso(found), when(moment), told)


def when(moment: float | None) -> str:
    """In UTC; a script of the page's writes it in the clock of who looks."""
    found = _date(moment)
    return _NONE if found is None else f"{found:%Y-%m-%d %H:%M} UTC"


def at(moment: float | None) -> Markup:
    """The moment itself."""
    found = _date(moment)
    return (
        Markup(_NONE)
        if found is None
        else Markup('<time datetime="{}" data-at>{}</time>').format(_iso(found), when(moment))
    )


def _date(moment: float | None) -> datetime | None:
    """None also where no calendar has such a day: guests and hosts say what they like."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return None if moment is None else datetime.fromtimestamp(moment, UTC)
    return None


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def share(told: float | None) -> str:
    return _NONE if told is None else f"{told:.0%}"


def said(text: object, longest: int = 300) -> str:
    """Words of others: as one line, of bounded length, without what turns or hides what follows."""
    return plain.joined(str(text), longest)


def name(text: object) -> Markup:
    """A name that may be long: it breaks where it has to."""
    return Markup('<bdi class="name">{}</bdi>').format(escape(said(text, 255)))


def count(number: int, noun: str, nouns: str = "") -> str:
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}".replace(",", " ")


FILTERS: dict[str, Any] = {
    "size": size,
    "seconds": seconds,
    "when": when,
    "at": at,
    "share": share,
    "said": said,
    "name": name,
    "counted": count,
}
