"""How long a run will take still: by how fast it was of late, and no word before that can be known."""

from __future__ import annotations

import collections

#: Before so many seconds have passed, nothing is said.
_FIRST_SECONDS = 3.0
#: The rate is that of the last third of the run, and of so many seconds at least: bursts do not show, changes do.
_LEAST_WINDOW = 20.0
_WINDOW_SHARE = 1 / 3
#: Seconds between two samples at least, as a share of the window.
_SAMPLE_SHARE = 1 / 100


class Estimate:
    """Of one thing that grows from the first sample on to its total. What was there before the first counts for
    nothing: it says how much was skipped, and not how fast."""

    def __init__(self) -> None:
        self._samples: collections.deque[tuple[float, int]] = collections.deque()
        self._begun: tuple[float, int] | None = None
        self._newest = (0.0, 0)
        self._total = 0

    def add(self, moment: float, done: int, total: int) -> None:
        """``moment`` in seconds, never less than the last one."""
        self._total = total
        self._newest = (moment, done)
        if self._begun is None:
            self._begun = self._newest
        if not self._samples or moment - self._samples[-1][0] >= self._window(moment) * _SAMPLE_SHARE:
            self._samples.append(self._newest)
            # One older than the window stays, to measure from.
            while len(self._samples) > 2 and self._samples[1][0] <= moment - self._window(moment):
                self._samples.popleft()

    def _window(self, moment: float) -> float:
        begun = self._begun[0] if self._begun else moment
        return max(_LEAST_WINDOW, (moment - begun) * _WINDOW_SHARE)

    def seconds_left(self, moment: float) -> float | None:
        """None where nothing sensible can be said. It grows while nothing gets on."""
        if self._begun is None or moment - self._begun[0] < _FIRST_SECONDS:
            return None
        then, before = self._samples[0]
        done = self._newest[1]
        if done >= self._total:
            return 0.0
        if moment <= then or done <= before:
            return None
        return (self._total - done) * (moment - then) / (done - before)


def told(seconds: float | None) -> str:
    """For people: no more exact than it can be."""
    if seconds is None:
        return ""
    if seconds < 55:
        return f"{max(5, round(seconds / 5) * 5)} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes if minutes < 10 else round(minutes / 5) * 5} min left"
    hours = seconds / 3600
    if hours < 10:
        return f"{round(hours * 2) / 2:g} h left"
    return f"{round(hours)} h left" if hours < 48 else f"{round(hours / 24)} days left"
