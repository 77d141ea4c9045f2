"""What is usual for one VM: its own figures of the last days, so that nobody has to know it to set a threshold."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Each figure is the mean of so many seconds.
STEP_SECONDS = 300.0
#: So many of them are kept: a week, so that every hour of every weekday is in it once.
KEPT = 7 * 24 * 12
#: Fewer tell nothing: an hour.
FEWEST = 12


@dataclass(frozen=True, slots=True)
class Usual:
    """``figures``: means of ``STEP_SECONDS`` each, oldest first."""

    figures: tuple[float, ...] = ()

    @classmethod
    def of(cls, figures: Iterable[float]) -> Usual:
        return cls(tuple(figures)[-KEPT:])

    @property
    def known(self) -> bool:
        return len(self.figures) >= FEWEST

    def percentile(self, share: float) -> float | None:
        """The figure that a ``share`` (0 to 1) of the time is not exceeded; None while too little is known."""
        return percentile(sorted(self.figures), share) if self.known else None

    def rank(self, figure: float) -> float:
        """Which share of the time is below this figure: 0 for one that is always the same, 0 where nothing is known."""
        ordered = sorted(self.figures)
        return bisect.bisect_left(ordered, figure) / len(ordered) if ordered else 0.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank, of ascending figures."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
