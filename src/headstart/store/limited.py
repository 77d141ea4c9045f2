"""A store to which no more is sent than a bucket lets pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from headstart.load.bucket import Bucket
from headstart.store.contract import Data, Locks, Store


class LimitedStore:
    """Wraps another store. ``create`` returns when its bytes would have passed at the bucket's rate; several stores
    may share one bucket."""

    def __init__(self, inner: Store, bucket: Bucket, sleep: Callable[[float], None] = time.sleep) -> None:
        self._inner = inner
        self._bucket = bucket
        self._sleep = sleep

    def create(self, key: str, data: Data) -> None:
        self._bucket.take(len(data))
        self._inner.create(key, data)
        # Not before: what is under way at a time is bounded by who waits here. A new rate counts at once.
        while (debt := self._bucket.debt()) > 0:
            self._sleep(min(debt, 0.5))

    def read(self, key: str) -> bytes:
        return self._inner.read(key)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._inner.read_range(key, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        return self._inner.modified(prefix)

    def locks(self) -> Locks | None:
        return self._inner.locks()

    def clock(self) -> float:
        return self._inner.clock()

    @property
    def window(self) -> int:
        return self._inner.window

    @property
    def host(self) -> str:
        return self._inner.host

    def __repr__(self) -> str:
        return repr(self._inner)
