"""Spans of time, and how long the guest's fsyncs took in them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.kit.vm import Vm

#: Finished at, in the host's ``time.monotonic()``, and seconds.
Sample = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Span:
    begin: float
    end: float

    def overlaps(self, sample: Sample) -> bool:
        finished, seconds = sample
        return finished - seconds < self.end and finished > self.begin


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds; None where nothing was written."""

    count: int
    p50: float | None
    p99: float | None

    @property
    def worst(self) -> float:
        """p99; a span without any write has none, and is no good one. Raises ``RuntimeError``."""
        if self.p99 is None:
            raise RuntimeError("the guest wrote nothing in a span that was to be measured")
        return self.p99


def latencies(samples: Sequence[Sample], chosen: Callable[[Sample], bool]) -> Latencies:
    ordered = sorted(seconds for finished, seconds in samples if chosen((finished, seconds)))
    return Latencies(len(ordered), _percentile(ordered, 0.50), _percentile(ordered, 0.99))


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank, in milliseconds."""
    return round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 3) if ordered else None


def window(vm: Vm, seconds: float) -> Span:
    """When the newest point in time stood, if it stood for ``seconds``: the removal of its exports, which QEMU tells,
    is the last thing that is done in the window."""
    removed = [event for event in vm.events("BLOCK_EXPORT_DELETED") if "point" in event["data"]["id"]]
    end = _monotonic(removed[-1])
    return Span(end - seconds, end)


def add_pause(vm: Vm, samples: Sequence[Sample], span: Span, seconds: float) -> list[Sample]:
    """The guest's clock stood still for ``seconds`` while the VM was stopped in ``span``: make the write longer that
    was under way. (One at a time is: the next sample to finish after the stop.)"""
    stops = [moment for moment in map(_monotonic, vm.events("STOP")) if span.begin <= moment <= span.end]
    longer = list(samples)
    for stop in stops:
        for index, (finished, took) in enumerate(longer):
            if finished >= stop:
                longer[index] = finished, took + seconds
                break
    return longer


def _monotonic(event: dict[str, Any]) -> float:
    """The event's time by the host's monotonic clock."""
    moment: float = event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
    return moment - time.time() + time.monotonic()
