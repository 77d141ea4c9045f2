"""What is known of a restore point's worth: verified, started and seen to live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.host.account import number


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """``level``: the name of an icon. ``awaited``: the sign of life; ``checks`` with whether they passed."""

    level: str
    title: str
    why: str
    awaited: str
    seconds: float | None
    checks: tuple[tuple[str, bool], ...]


def of(point: Mapping[str, Any]) -> Rehearsal | None:
    """Of the newest rehearsal, as its host has told it; None: there was none."""
    told = point["proof"]
    if point["rehearsed"] is None and not isinstance(told, dict):
        return None
    told = told if isinstance(told, dict) else {}
    checks = told.get("checks")
    found = [each for each in checks if isinstance(each, dict)] if isinstance(checks, list) else []
    passed = told.get("passed") is True
    return Rehearsal(
        "good" if passed else "bad",
        "Rehearsed" if passed else "Did not live",
        str(told.get("reason") or ""),
        str(told.get("awaited") or ""),
        number(told.get("seconds")),
        tuple((str(each.get("name")), each.get("passed") is True) for each in found[:20]),
    )
