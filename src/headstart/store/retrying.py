"""A store that tries again what may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from headstart import errors
from headstart.store.contract import Data, Exists, Locks, Missing, Protection, Refused, Store

T = TypeVar("T")

#: Seconds of the first pause, at most; each further one may be twice as long, up to the other.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
#: Seconds after which nothing is begun again: of a store that has answered before, and of one that never has, where
#: a wrong address is likelier than trouble.
PATIENCE, FIRST_PATIENCE = 120.0, 10.0


class RetryingStore:
    """Wraps another store. Of what it raises, ``StoreFailed`` is tried again, but for ``Refused``, with growing pauses
    of a random length, so that many clients of a store in trouble do not come back together.

    A ``create`` of which the outcome is not known is repeated too; finding its own object then is a success.
    """

    def __init__(
        self,
        inner: Store,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        patience: float = PATIENCE,
    ) -> None:
        """``chance``: from 0 to 1. ``patience``: in seconds, with a store that has answered before."""
        self._inner = inner
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._patience = patience
        self._answered = False

    @property
    def window(self) -> int:
        return self._inner.window

    @property
    def host(self) -> str:
        return self._inner.host

    def __repr__(self) -> str:
        return repr(self._inner)

    def create(self, key: str, data: Data) -> None:
        unknown = False

        def attempt() -> None:
            nonlocal unknown
            try:
                self._inner.create(key, data)
            except Exists:
                if not (unknown and self._is(key, data)):
                    raise
            except errors.StoreFailed:
                unknown = True
                raise

        self.persist(attempt)

    def read(self, key: str) -> bytes:
        return self.persist(lambda: self._inner.read(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self.persist(lambda: self._inner.read_range(key, offset, length))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return iter(self.persist(lambda: list(self._inner.list(prefix))))

    def delete(self, key: str) -> None:
        self.persist(lambda: self._inner.delete(key))

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        return iter(self.persist(lambda: list(self._inner.modified(prefix))))

    def locks(self) -> Locks | None:
        found = self._inner.locks()
        return None if found is None else _RetryingLocks(found, self)

    def clock(self) -> float:
        return self.persist(self._inner.clock)

    def _is(self, key: str, data: Data) -> bool:
        try:
            return self.read(key) == data
        except Missing:
            return False

    def persist(self, attempt: Callable[[], T]) -> T:
        """What the attempt returns, once it does."""
        begun, pause = self._clock(), FIRST_PAUSE
        while True:
            try:
                done = attempt()
            except errors.StoreFailed as error:
                patience = self._patience if self._answered else min(self._patience, FIRST_PATIENCE)
                if isinstance(error, (Refused, Exists)) or self._clock() - begun + pause > patience:
                    raise
            except errors.HeadstartError:
                self._answered = True
                raise
            else:
                self._answered = True
                return done
            self._sleep(pause * self._chance())
            pause = min(2 * pause, LONGEST_PAUSE)


class _RetryingLocks:
    def __init__(self, inner: Locks, store: RetryingStore) -> None:
        self._inner = inner
        self._store = store

    def available(self) -> bool:
        return self._store.persist(self._inner.available)

    def days(self) -> int | None:
        return self._store.persist(self._inner.days)

    def protect(self, protection: Protection) -> None:
        self._inner.protect(protection)

    def locked_until(self, key: str) -> float:
        return self._store.persist(lambda: self._inner.locked_until(key))

    def extend(self, key: str, until: float) -> None:
        self._store.persist(lambda: self._inner.extend(key, until))
