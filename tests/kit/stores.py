"""Stores that fail, hang, forget to answer, and count; repositories that cost no time to open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from headstart import repository
from headstart.repository import keys
from headstart.repository.repo import Repository
from headstart.store.contract import Data, Locks, Protection, Refused, Store
from headstart.store.memory import MemoryStore

T = TypeVar("T")
PASSWORD = b"correct horse"
#: What a guess at the password costs in tests: nothing.
QUICK = keys.Argon2(memory_kib=32, passes=1, lanes=1)
#: Gets what the store would do, and does it, or not.
Fault = Callable[[Callable[[], object]], object]


def fail(error: BaseException) -> Fault:
    """The request does not reach the store."""

    def fault(_: Callable[[], object]) -> object:
        raise error

    return fault


def lose(error: Exception) -> Fault:
    """The store does it, and the answer is lost."""

    def fault(act: Callable[[], object]) -> object:
        act()
        raise error

    return fault


def forget(_: Callable[[], object]) -> None:
    """The store says that it has done it, and has not: lost after it was acknowledged."""


def hang(until: threading.Event) -> Fault:
    """The store does it once ``until`` is set."""

    def fault(act: Callable[[], object]) -> object:
        assert until.wait(60), "nobody released the hanging request"
        return act()

    return fault


class FaultyStore:
    """Counts the requests, and does what was planned to the n-th one of a method on keys with a prefix."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.requests: list[tuple[str, str]] = []
        self.bytes_read = 0
        self._lock = threading.Lock()
        self._plans: list[tuple[str, str, int, Fault]] = []

    def __repr__(self) -> str:
        return f"faulty {self.store!r}"

    def plan(self, method: str, fault: Fault, prefix: str = "", number: int = 1) -> None:
        """``number``: from now on, 1 is the next."""
        with self._lock:
            self._plans.append((method, prefix, number + self._count(method, prefix), fault))

    def count(self, method: str, prefix: str = "") -> int:
        with self._lock:
            return self._count(method, prefix)

    def create(self, key: str, data: Data) -> None:
        self._request("create", key, lambda: self.store.create(key, data))

    def read(self, key: str) -> bytes:
        return self._counted(self._request("read", key, lambda: self.store.read(key)))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._counted(self._request("read_range", key, lambda: self.store.read_range(key, offset, length)))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return self._request("list", prefix, lambda: self.store.list(prefix))

    def delete(self, key: str) -> None:
        self._request("delete", key, lambda: self.store.delete(key))

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        return self._request("modified", prefix, lambda: self.store.modified(prefix))

    def locks(self) -> Locks | None:
        return self.store.locks()

    @property
    def window(self) -> int:
        return self.store.window

    @property
    def host(self) -> str:
        return self.store.host

    def clock(self) -> float:
        return self._request("clock", "", self.store.clock)

    def _request(self, method: str, key: str, act: Callable[[], T]) -> T:
        with self._lock:
            self.requests.append((method, key))
            fault = self._fault(method, key)
        return act() if fault is None else fault(act)  # type: ignore[return-value]

    def _fault(self, method: str, key: str) -> Fault | None:
        for planned, prefix, number, fault in self._plans:
            if planned == method and key.startswith(prefix) and self._count(method, prefix) == number:
                return fault
        return None

    def _count(self, method: str, prefix: str) -> int:
        return sum(done == method and key.startswith(prefix) for done, key in self.requests)

    def _counted(self, data: bytes) -> bytes:
        with self._lock:
            self.bytes_read += len(data)
        return data


class LockingStore(MemoryStore):
    """Locks in memory. Deleting what is locked is a mistake that no test makes on purpose."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self.until: dict[str, float] = {}
        self._protection: Protection | None = None

    def create(self, key: str, data: Data) -> None:
        super().create(key, data)
        if self._protection is not None and self._protection.covers(key):
            self.until[key] = self.clock() + self._protection.seconds

    def delete(self, key: str) -> None:
        assert self.until.get(key, 0.0) <= self.clock(), f"{key} is locked, and was deleted"
        super().delete(key)

    def locks(self) -> Locks:
        return self

    def available(self) -> bool:
        return True

    def days(self) -> None:
        return None

    def protect(self, protection: Protection) -> None:
        self._protection = protection

    def locked_until(self, key: str) -> float:
        self.read(key)
        return self.until.get(key, 0.0)

    def extend(self, key: str, until: float) -> None:
        if until < self.locked_until(key):
            raise Refused(f"{key} is locked for longer.")
        self.until[key] = until


def new_repository(store: Store | None = None) -> Repository:
    """A fresh repository, in memory if no store is given, with ``PASSWORD``."""
    return repository.create(MemoryStore() if store is None else store, PASSWORD, cost=QUICK)


def reopened(repo: Repository, cache: Path | None = None) -> Repository:
    """What another process would see: nothing that is not in the store, or in the cache of the index."""
    opened = repository.open(repo.store, lambda: PASSWORD)
    if cache is not None:
        opened.holdings.use_cache(cache)
    return opened
