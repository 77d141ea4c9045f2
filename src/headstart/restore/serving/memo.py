"""Values that are made once, by whoever asks first, and the last of which are kept."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Any thread may use it. What ``make`` raises goes to all who wait for it, and is not kept."""

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self._make = make
        self._most = most
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[K, Future[V]] = collections.OrderedDict()

    def __getitem__(self, key: K) -> V:
        with self._lock:
            future = self._kept.get(key)
            first = future is None
            if future is None:
                future = self._kept[key] = Future()
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        if first:
            self._fulfil(key, future)
        return future.result()

    def forget(self, key: K) -> None:
        """It is made anew for whoever asks from now on."""
        with self._lock:
            self._kept.pop(key, None)

    def _fulfil(self, key: K, future: Future[V]) -> None:
        try:
            future.set_result(self._make(key))
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is future:
                    del self._kept[key]
            future.set_exception(error)
