"""What a ward is doing at the moment: others may look at it, and end it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headstart import errors


@dataclass(frozen=True, slots=True)
class Doing:
    """``since`` in seconds since 1970; ``quiet``: seconds since it was last heard of."""

    verb: str
    since: float
    what: str
    done: int
    total: int
    quiet: float

    def json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Activity:
    """At most one thing at a time. ``beat`` and ``progress`` are called by who does it, the others by anybody."""

    def __init__(self, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._verb = ""
        self._since = self._beaten = 0.0
        self._progress = ("", 0, 0)
        self._cancelled = ""
        self._stopping = ""

    @contextlib.contextmanager
    def doing(self, verb: str) -> Iterator[None]:
        with self._lock:
            self._verb, self._since, self._beaten = verb, self._clock(), self._ticks()
            self._progress, self._cancelled = ("", 0, 0), ""
        try:
            yield
        finally:
            with self._lock:
                self._verb = ""

    def beat(self) -> None:
        """It gets on. Raises ``Interrupted`` if it is to end."""
        self._beaten = self._ticks()
        why = self._cancelled or self._stopping
        if why:
            raise errors.Interrupted(why)

    def progress(self, what: str, done: int, total: int) -> None:
        self._progress = (what, done, total)

    def cancel(self, why: str) -> bool:
        """End what is being done, if anything is; what comes after it is not meant."""
        with self._lock:
            if not self._verb:
                return False
            self._cancelled = why
            return True

    def stop(self, why: str) -> None:
        """End what is being done, and whatever is begun from now on."""
        self._stopping = why

    @property
    def cancelled(self) -> str:
        """Why what is being done was cancelled; empty if it was not."""
        return self._cancelled

    def now(self) -> Doing | None:
        with self._lock:
            if not self._verb:
                return None
            return Doing(self._verb, self._since, *self._progress, self._ticks() - self._beaten)
