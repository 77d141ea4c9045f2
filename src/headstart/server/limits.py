"""How often somebody may ask, in each process for itself: a bucket of tokens for each who asks.

Whoever is known has one by name, whatever the address: hosts behind one address do not slow each other. Whoever is not
known (yet) has one by address. Of several processes each counts alone, so that together they allow so many times as
much; what must not be multiplied, wrong passwords, is counted in the database (``attempts``).
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headstart import errors

#: So many buckets are kept; those that are full are forgotten first, and tell nothing.
_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a second for long, and so many at once. ``per_second`` 0: no limit."""

    per_second: float
    burst: float


#: A host that pushes packs asks some ten times a second; a browser that loads a page about twenty times at once.
KNOWN, STRANGERS = Rate(200.0, 1000.0), Rate(20.0, 200.0)


@dataclass(slots=True)
class Buckets:
    """Any thread may use it. ``clock``: seconds that only go forward."""

    rate: Rate
    clock: Callable[[], float] = time.monotonic
    _level: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, key: str) -> None:
        """Raises ``TooOften``."""
        if not self.rate.per_second:
            return
        with self._lock:
            now = self.clock()
            level, since = self._level.pop(key, (self.rate.burst, now))
            level = min(self.rate.burst, level + (now - since) * self.rate.per_second)
            self._level[key] = (level - 1 if level >= 1 else level, now)
            if len(self._level) > _KEPT:
                self._forget(now)
        if level < 1:
            seconds = math.ceil((1 - level) / self.rate.per_second)
            raise errors.TooOften("That was asked too often. Wait a while.", seconds=max(seconds, 1))

    def _forget(self, now: float) -> None:
        full_after = self.rate.burst / self.rate.per_second
        old = [key for key, (_, since) in self._level.items() if now - since > full_after]
        # In the order of their last use: where none is full, the one that is nearest to it goes.
        for key in old or list(self._level)[: _KEPT // 10]:
            del self._level[key]


@dataclass(frozen=True, slots=True)
class Limits:
    known: Buckets
    strangers: Buckets


def place(address: str) -> str:
    """What counts as one address: of IPv6 a network of 64 bits, which one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False).network_address)
