"""How busy the VM is at every moment of a trace: a step function."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from headstart.load.usual import STEP_SECONDS, Usual
from headstart.simulation import rows
from headstart.simulation.trace import Trace

MEANING = "seconds since the trace began, load from 0 to 1 that holds from then on"


@dataclass(frozen=True)
class Load:
    """``values[i]`` holds from ``moments[i]`` on, until the next; before the first it is 0. ``end`` of the trace."""

    moments: Sequence[float]
    values: Sequence[float]
    end: float

    def at(self, moment: float) -> float:
        index = bisect.bisect_right(self.moments, moment) - 1
        return self.values[index] if index >= 0 else 0.0

    def next_change(self, moment: float) -> float:
        index = bisect.bisect_right(self.moments, moment)
        return self.moments[index] if index < len(self.moments) else math.inf

    def percentile(self, share: float) -> float:
        """The load that is not exceeded in this share of the time until ``end``."""
        spans = sorted(self._spans(0.0, self.end))
        total, passed = sum(seconds for _, seconds in spans), 0.0
        for value, seconds in spans:
            passed += seconds
            if passed >= share * total:
                return value
        return 0.0

    def usual(self, moment: float) -> Usual:
        """What was known of it at a moment, as the daemon keeps it."""
        return Usual.of(self._figures[: int(moment // STEP_SECONDS)])

    @cached_property
    def _figures(self) -> list[float]:
        """Means of ``STEP_SECONDS`` each."""
        count = math.ceil(self.end / STEP_SECONDS)
        steps = ((number * STEP_SECONDS, (number + 1) * STEP_SECONDS) for number in range(count))
        return [sum(value * seconds for value, seconds in self._spans(*step)) / STEP_SECONDS for step in steps]

    def _spans(self, begin: float, end: float) -> list[tuple[float, float]]:
        """Loads and how many seconds each holds."""
        found = []
        while begin < end:
            change = min(end, self.next_change(begin))
            found.append((self.at(begin), change - begin))
            begin = change
        return found


def read(path: Path, end: float) -> Load:
    """Of a CSV file."""
    moments: list[float] = []
    values: list[float] = []
    for line, (when, how_much) in rows.rows(path, 2, MEANING):
        moments.append(rows.seconds(path, line, when, moments[-1] if moments else 0.0))
        values.append(rows.number(path, line, how_much))
        if values[-1] > 1:
            raise rows.wrong(path, line, f"the load {how_much.strip()} is greater than 1")
    return Load(moments, values, end)


def of_trace(trace: Trace, end: float) -> Load:
    """Bytes written in each five minutes of the trace, as a share of those in the busiest five minutes."""
    most = max(trace.written.values())
    count = max(trace.written) + 2
    moments = [number * STEP_SECONDS for number in range(count)]
    return Load(moments, [trace.written.get(number, 0) / most for number in range(count)], end)
