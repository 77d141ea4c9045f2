"""How long requests took, by what they were for."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Latency:
    """Of ``count`` requests; seconds."""

    what: str
    count: int
    median: float
    p95: float
    p99: float
    longest: float


class Clock:
    """For any number of threads."""

    def __init__(self) -> None:
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self.failures: list[str] = []

    def time(self, what: str, act: Callable[[], T]) -> T:
        began = time.perf_counter()
        found = act()
        with self._lock:
            self._taken[what].append(time.perf_counter() - began)
        return found

    def failed(self, why: str) -> None:
        with self._lock:
            self.failures.append(why)

    def latencies(self) -> list[Latency]:
        return [_latency(what, taken) for what, taken in sorted(self._taken.items()) if len(taken) > 1]


def _latency(what: str, taken: list[float]) -> Latency:
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return Latency(what, len(taken), statistics.median(taken), cuts[94], cuts[98], max(taken))
