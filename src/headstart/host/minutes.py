"""What was measured, gathered minute by minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headstart.state.series import MINUTE, Minute


@dataclass(frozen=True, slots=True)
class Levels:
    """How a VM stands: the governor's state; bytes that remain to be copied, and of these those put off on purpose."""

    state: str
    remaining: int
    deferred: int


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass(slots=True)
class Minutes:
    """``keep`` gets each minute once it is over, with the levels at its end. Used by one thread."""

    levels: Callable[[], Levels]
    keep: Callable[[Minute], None]
    _moment: int = 0
    _load: _Mean = field(default_factory=_Mean)
    _latency: _Mean = field(default_factory=_Mean)
    _copied: int = 0

    def add(self, now: float, load: float | None, latency: float | None, copied: int) -> None:
        """``now``: seconds since 1970. ``copied``: bytes since the last call."""
        moment = int(now) // MINUTE * MINUTE
        if moment != self._moment:
            self.end()
            self._moment = moment
        self._load.add(load)
        self._latency.add(latency)
        self._copied += copied

    def end(self) -> None:
        """Keep what there is of this minute."""
        if self._moment:
            at = self.levels()
            load, latency = self._load.value, self._latency.value
            self.keep(Minute(self._moment, load, latency, at.state, self._copied, at.remaining, at.deferred))
        self._load, self._latency, self._copied = _Mean(), _Mean(), 0
