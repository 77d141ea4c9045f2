"""The sensors of one VM and of the host, from look to look."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.guest.agent import Agent
from headstart.guest.channel import Lost
from headstart.host import tally
from headstart.host.tally import Tally
from headstart.hypervisor.counters import Counters
from headstart.load import inside, machine, outside, signals
from headstart.load.averages import Average
from headstart.load.governor import Reading
from headstart.load.machine import Own, Sample
from headstart.load.signals import Signals

#: A look of half a second sees few writes: what they took is averaged over so many seconds.
LATENCY_SECONDS = 2.0
#: The guest's figures are wanted so often while something is copied.
FIGURES_SECONDS = 0.5


class Gauge:
    """Used by one thread. ``interface``: the one that leads to the store; empty: it is on this machine."""

    def __init__(
        self, own: Tally, sample: Callable[[Sequence[Path], str], Sample], interface: Callable[[], str]
    ) -> None:
        self._tally = own
        self._look_at_host = sample
        self._interface = interface
        self._counters: Counters | None = None
        self._sample: Sample | None = None
        self._own: Own | None = None
        self._figures: Mapping[str, Any] | None = None
        self._inside: Signals | None = None
        self._agent: Agent | None = None
        self._heard = self._looked = 0.0
        self._latency = Average(LATENCY_SECONDS)
        self.missing: tuple[str, ...] = ()

    def look(self, counters: Counters | None, images: Sequence[Path], agent: Agent | None = None) -> Signals:
        """What has been since the last look. ``agent``: one whose session is open, while something is copied."""
        now = time.monotonic()
        parts = [*self._outside(counters), *self._of_agent(agent, now), *self._of_host(images)]
        self._looked = now
        found = signals.together(*parts)
        self.missing = tuple(name for name in found.missing if name != machine.NETWORK or self._interface())
        return found

    def reading(self, found: Signals, bound: float | None) -> Reading:
        """``bound`` of the latency."""
        if found.latency is not None:
            self._latency = self._latency.moved(found.latency, found.moment)
        load, what = signals.load(found) if found.values else (None, "")
        # What was measured long ago, before the guest fell silent, bounds nothing.
        latency = self._latency.value if found.latency is not None else None
        return Reading(time.monotonic(), load, what, latency, bound)

    def _outside(self, counters: Counters | None) -> list[Signals]:
        before, self._counters = self._counters, counters
        return [outside.signals(before, counters)] if before is not None and counters is not None else []

    def _of_host(self, images: Sequence[Path]) -> list[Signals]:
        before, own = self._sample, self._own
        self._sample, self._own = self._look_at_host(images, self._interface()), self._tally.now()
        if before is None or own is None:
            return []
        return [machine.signals(before, self._sample, tally.between(own, self._own))]

    def _of_agent(self, agent: Agent | None, now: float) -> list[Signals]:
        if agent is None:
            self._agent = self._figures = self._inside = None
            return []
        if agent is not self._agent or now - self._looked > inside.SILENCE_SECONDS:
            # Another session; or it was we who did not listen.
            self._heard = now
        try:
            if agent is not self._agent:
                self._agent, self._figures, self._inside = agent, None, None
                agent.watch(FIGURES_SECONDS)
            agent.pump(0.0)
            self._hear(agent.latest(), now)
        except Lost:
            # Whoever reads through it finds out as well, and tells.
            return []
        return [*([self._inside] if self._inside else []), inside.silence(now, self._heard)]

    def _hear(self, figures: Mapping[str, Any] | None, now: float) -> None:
        if figures is None:
            return
        if self._figures is not None:
            self._inside = inside.signals(now, self._figures, figures)
            self._tally.agent(max(0.0, _cpu(figures) - _cpu(self._figures)))
        self._heard, self._figures = now, figures


def _cpu(figures: Mapping[str, Any]) -> float:
    """Of the agent itself: the guest's word."""
    own = figures.get("own")
    seconds = own.get("cpu_seconds") if isinstance(own, Mapping) else None
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else 0.0
