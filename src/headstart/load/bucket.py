"""A token bucket: how much may pass in a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: A full bucket holds what passes in this time: short pauses are made up for, longer ones are not.
BURST_SECONDS = 0.25


class Bucket:
    """``rate`` in bytes a second; None lets everything pass, 0 nothing. For several threads.

    Who takes more than there is makes a debt, and waits until the bucket has grown out of it::

        bucket.take(count)
        while (seconds := bucket.debt()) > 0: sleep(min(seconds, ...))
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = rate
        self._tokens = 0.0
        self._filled = clock()
        self._passed = 0

    @property
    def rate(self) -> float | None:
        return self._rate

    @property
    def passed(self) -> int:
        """All that was ever taken."""
        return self._passed

    def set_rate(self, rate: float | None) -> None:
        with self._lock:
            self._fill()
            self._rate = rate

    def take(self, count: int) -> None:
        with self._lock:
            self._fill()
            self._tokens -= count
            self._passed += count

    def debt(self) -> float:
        """Seconds until what was taken has passed; infinite where nothing passes."""
        with self._lock:
            self._fill()
            # A part of a byte is no debt: a clock may not even be able to tell the time for it.
            if self._rate is None or self._tokens > -1.0:
                return 0.0
            return -self._tokens / self._rate if self._rate > 0 else float("inf")

    def _fill(self) -> None:
        now = self._clock()
        if self._rate is None:
            self._tokens = 0.0
        else:
            grown = self._tokens + max(0.0, now - self._filled) * self._rate
            self._tokens = min(self._rate * BURST_SECONDS, grown)
        self._filled = now
