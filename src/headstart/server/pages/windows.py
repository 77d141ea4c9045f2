"""Windows with a head start beside those without: what was read in them, and what would have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart import units

#: Windows in which less was read say nothing of how fast that is.
_ENOUGH = 4 * units.MIB


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of some restore points. ``rate``: bytes a second in windows; None: too little was read in them to tell.
    ``changed``: what a plain incremental backup reads in its windows, ``read``: what was."""

    count: int
    changed: float
    read: float
    rate: float | None

    def without(self, point: Mapping[str, Any]) -> float | None:
        """Seconds: the window of this one, with the rest of what changed read in it at the usual rate."""
        changed, residue, window = (point[name] for name in ("changed_bytes", "residue_bytes", "window_seconds"))
        if self.rate is None or changed is None or residue is None or window is None:
            return None
        return float(window + max(0.0, changed - residue) / self.rate)


def compare(points: Sequence[Mapping[str, Any]]) -> Comparison:
    told = [each for each in points if each["changed_bytes"] is not None and each["residue_bytes"] is not None]
    large = [each for each in told if each["residue_bytes"] >= _ENOUGH and each["window_seconds"]]
    seconds = sum(each["window_seconds"] for each in large)
    rate = sum(each["residue_bytes"] for each in large) / seconds if seconds > 0 else None
    return Comparison(
        len(told), sum(each["changed_bytes"] for each in told), sum(each["residue_bytes"] for each in told), rate
    )
