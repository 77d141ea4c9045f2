"""The program's surroundings in memory, each of whose steps can be the last one that the program takes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Protocol

from headstart import errors
from headstart.hypervisor.contract import Action, PointInTime, PointRequest
from headstart.hypervisor.memory import MemoryImages, MemoryMachine, MemoryVm
from headstart.state.journal import Journal
from headstart.state.values import HOST
from headstart.store.contract import Data
from headstart.store.memory import MemoryStore
from headstart.transfer.pipeline import Stored
from tests.kit.insider import ADDRESS
from tests.kit.script import Misread, Place, Trouble


class Killed(BaseException):
    """The program ends, as by SIGKILL: nothing of it does anything any longer."""


class Watcher(Protocol):
    """Who counts the steps, and decides where the program ends."""

    def reach(self, place: Place, *, after: bool) -> None:
        """Raises ``Killed`` if the program ends here, or did before."""

    def store_trouble(self) -> Trouble | None:
        """What goes wrong with this creation."""
        ...

    def misread(self) -> Misread | None:
        """What goes wrong with this read."""
        ...

    def point_stands(self) -> None:
        """``take`` is about to return."""


#: What ``Journal.copied`` is called with.
_Copied = tuple[str, str, list[Stored], list[str], Container[str], int]


class WatchedJournal(Journal):
    """A journal in memory that can be copied and put back."""

    watcher: Watcher | None = None
    #: What was reported as copied last: by this run, by the one before.
    _told: _Copied | None = None
    _told_before: _Copied | None = None

    def new_run(self) -> None:
        self._told_before, self._told = self._told, None

    def copied(
        self,
        vm: str,
        round_id: str,
        done: Iterable[Stored],
        packs: Iterable[str] = (),
        delivered: Container[str] = frozenset(),
        deliverer: int = HOST,
    ) -> None:
        self._told = (vm, round_id, list(done), list(packs), delivered, deliverer)
        super().copied(*self._told)

    def repeat(self) -> bool:
        """A thread of the run before comes late with what it had reported already; whether there is such a thing."""
        if self._told_before is None:
            return False
        with contextlib.suppress(errors.Locked):
            Journal.copied(self, *self._told_before)
        return True

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
        if self.watcher is None:
            super().create(key, data)
            return
        self.watcher.reach("create", after=False)
        trouble = self.watcher.store_trouble()
        if trouble not in ("fails", "object lost"):
            super().create(key, data)
        if trouble in ("fails", "answer lost"):
            raise errors.StoreFailed(f"{key} could not be created: the store does not answer.")
        if trouble == "twice":
            super().create(key, data)
        self.watcher.reach("create", after=True)

    def read(self, key: str) -> bytes:
        return self._misread(key, super().read(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._misread(key, MemoryStore.read(self, key)[offset : offset + length])

    def _misread(self, key: str, data: bytes) -> bytes:
        wrong = self.watcher.misread() if self.watcher is not None else None
        if wrong is None:
            return data
        if not wrong.spoilt:
            raise errors.StoreFailed(f"{key} could not be read: the store does not answer.")
        spoilt = bytearray(data)
        for place in (len(spoilt) // 2,) if spoilt else ():
            spoilt[place] ^= 0x10
        return bytes(spoilt)

    def keys(self, prefix: str) -> Iterator[str]:
        return (key for key, _ in super().list(prefix))


class WatchedMachine(MemoryMachine):
    """A connection of the program that is being watched."""

    def __init__(self, vm: MemoryVm, installation: str, watcher: Watcher, *, inside: bool = False) -> None:
        """``inside``: an agent listens in the guest."""
        super().__init__(vm, installation, vm.block_size)
        self._watcher = watcher
        self._inside = inside
        self._ordered: list[Action] = []
        self._belated: list[Action] = []
        self.taking = False
        #: The connection has ended before the program.
        self.cut = False

    @property
    def agent(self) -> str:  # type: ignore[override]
        return ADDRESS if self._inside else ""

    def transact(self, actions: Sequence[Action]) -> None:
        self._ordered = list(actions)
        super().transact(actions)

    def end_connection(self, *, late: bool) -> None:
        """``late``: QEMU still has the order that was being given."""
        self.cut = True
        self._belated = self._ordered if late else []
        self.die()

    def carry_out_belated(self) -> None:
        """QEMU comes to it: after the program has given up, and before it serves the next connection."""
        if self._vm.process is self.process:
            with contextlib.suppress(errors.HeadstartError):
                self.apply(self._belated)

    def take(self, request: PointRequest) -> PointInTime:
        self.taking = True
        try:
            point = super().take(request)
        finally:
            self.taking = False
        self._watcher.point_stands()
        return point


class WatchedImages(MemoryImages):
    """The images of the VM while it is off, in the hands of the program that is being watched."""

    def __init__(self, vm: MemoryVm, watcher: Watcher) -> None:
        super().__init__(vm)
        self._watcher = watcher

    def take(self, request: PointRequest) -> PointInTime:
        point = super().take(request)
        self._watcher.point_stands()
        return point
