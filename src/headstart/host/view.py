"""What is told of a VM under protection: plain values, whose JSON is a contract (docs/cli.md)."""

from __future__ import annotations

import math
from typing import Any

from headstart.backup.forecast import Forecast, Range
from headstart.host.ward import Ward

#: While these are done, a VM is in the state that its course says.
_AHEAD = ("precopy", "trim")


def of(ward: Ward, hangs: bool) -> dict[str, Any]:
    course, doing = ward.course, ward.activity.now()
    governor, due = course.governor, course.due
    return {
        "policy": ward.policy.name,
        "state": "hangs" if hangs else doing.verb if doing and doing.verb not in _AHEAD else course.said.state,
        "reason": course.said.reason,
        "due": course.owed if math.isfinite(course.owed) else None,
        "missed": due is not None and due.missed,
        "remaining_bytes": course.remaining,
        "deferred_bytes": course.deferred,
        "load": governor.load,
        "marks": {"low": course.marks.low, "high": course.marks.high},
        "rate": governor.rate if doing and doing.verb == "precopy" else 0.0,
        "missing_sensors": list(course.gauge.missing),
        "forecast": _forecast(course.forecast),
        "doing": doing.json() if doing else None,
    }


def _forecast(made: Forecast | None) -> dict[str, Any] | None:
    if made is None:
        return None
    ranges = {
        "residue_bytes": made.residue,
        "window_seconds": made.window,
        "scratch_bytes": made.scratch,
        "spool_bytes": made.spool,
    }
    return {name: _range(each) for name, each in ranges.items()} | {"warnings": list(made.reasons)}


def _range(found: Range) -> dict[str, float]:
    return {"low": found.low, "likely": found.likely, "high": found.high}
