"""The program's surroundings in memory, each of whose steps can be the last one that the program takes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Literal, Protocol

from headstart import errors
from headstart.hypervisor.contract import PointInTime, PointRequest
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.state.journal import Journal
from headstart.store.contract import Data
from headstart.store.memory import MemoryStore

Place = Literal["step", "commit", "create"]


class Killed(BaseException):
    """The program ends, as by SIGKILL: nothing of it does anything any longer."""


class Watcher(Protocol):
    """Who counts the steps, and decides where the program ends."""

    def reach(self, place: Place, *, after: bool) -> None:
        """Raises ``Killed`` if the program ends here, or did before."""

    def store_fails(self) -> tuple[bool, bool]:
        """Whether this creation fails, and whether the store does it all the same."""
        ...

    def point_stands(self) -> None:
        """``take`` is about to return."""


class WatchedJournal(Journal):
    """A journal in memory that can be copied and put back."""

    watcher: Watcher | None = None

    def _commit(self) -> None:
        try:
            self._reach(after=False)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        super()._commit()
        self._reach(after=True)

    def _reach(self, *, after: bool) -> None:
        if self.watcher is not None:
            self.watcher.reach("commit", after=after)

    def image(self) -> bytes:
        return self._database.serialize()

    @classmethod
    def of_image(cls, image: bytes) -> WatchedJournal:
        database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        database.deserialize(image)
        return cls(database, None)

    @classmethod
    def empty(cls) -> WatchedJournal:
        return cls(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), None)


class WatchedStore(MemoryStore):
    """``watcher`` None: it just works."""

    watcher: Watcher | None = None

    def create(self, key: str, data: Data) -> None:
        fails = done = False
        if self.watcher is not None:
            self.watcher.reach("create", after=False)
            fails, done = self.watcher.store_fails()
        if not fails or done:
            super().create(key, data)
        if fails:
            raise errors.StoreFailed(f"{key} could not be created: the store does not answer.")
        if self.watcher is not None:
            self.watcher.reach("create", after=True)

    def keys(self, prefix: str) -> Iterator[str]:
        return (key for key, _ in super().list(prefix))


class WatchedMachine(MemoryMachine):
    """A connection of the program that is being watched."""

    def __init__(self, vm: MemoryVm, installation: str, watcher: Watcher) -> None:
        super().__init__(vm, installation, vm.block_size)
        self._watcher = watcher
        self.taking = False

    def take(self, request: PointRequest) -> PointInTime:
        self.taking = True
        try:
            point = super().take(request)
        finally:
            self.taking = False
        self._watcher.point_stands()
        return point
