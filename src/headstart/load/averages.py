"""Moving averages of figures that arrive at uneven intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Average:
    """An exponential average with a time constant: after ``seconds`` of a new value 63 % of the way to it is gone.

    The first value is taken as it is. ``moment`` is of any clock that does not go backwards, in seconds."""

    seconds: float
    value: float | None = None
    moment: float = 0.0

    def moved(self, value: float, moment: float) -> Average:
        """With one more value, which counts for the time since the last one."""
        if self.value is None:
            return Average(self.seconds, value, moment)
        passed = max(0.0, moment - self.moment)
        rest = math.exp(-passed / self.seconds)
        return Average(self.seconds, value + (self.value - value) * rest, moment)
