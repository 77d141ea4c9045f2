"""A store in memory, for tests and rehearsals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from headstart.store import contract


class MemoryStore:
    """Keeps the contract of :class:`contract.Store`, except that it ends with the process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._objects: dict[str, bytes] = {}
        self._created: dict[str, float] = {}

    @property
    def window(self) -> int:
        return contract.NEAR

    @property
    def host(self) -> str:
        return ""

    def __repr__(self) -> str:
        return "memory"

    def create(self, key: str, data: contract.Data) -> None:
        copy = bytes(data)
        with self._lock:
            if contract.check_key(key) in self._objects:
                raise contract.Exists(f"{key} exists already", object=key)
            self._objects[key] = copy
            self._created[key] = self._clock()

    def read(self, key: str) -> bytes:
        with self._lock:
            try:
                return self._objects[contract.check_key(key)]
            except KeyError:
                raise contract.Missing(f"{key} is missing", object=key) from None

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self.read(key)[offset : offset + length]

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._lock:
            found = [(key, len(data)) for key, data in self._objects.items() if key.startswith(prefix)]
        return iter(found)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(contract.check_key(key), None)
            self._created.pop(key, None)

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        with self._lock:
            dated = [(key, created) for key, created in self._created.items() if key.startswith(prefix)]
            found = [(key, len(self._objects[key]), created) for key, created in dated]
        return iter(found)

    def locks(self) -> contract.Locks | None:
        return None

    def clock(self) -> float:
        return self._clock()
