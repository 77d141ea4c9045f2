"""A host in memory: simulated VMs, a daemon in this process, a wall clock that the test sets."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import repository
from headstart.backup.context import Context
from headstart.backup.transport import Transport
from headstart.host import control, daemon, retry, ward
from headstart.host.daemon import Daemon
from headstart.host.house import House
from headstart.host.notify import Notifier
from headstart.host.policy import Config, HeadStart, Host, Policy, Schedule
from headstart.host.slots import Slots
from headstart.host.tally import Tally
from headstart.host.vault import Vault
from headstart.hypervisor.contract import Machine
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.memory import MemoryImages, MemoryMachine, MemoryVm
from headstart.hypervisor.memory import counters as memory_counters
from headstart.load.bucket import Bucket
from headstart.load.machine import Sample
from headstart.repository import snapshot, tree
from headstart.repository.repo import Repository
from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.series import Series
from headstart.state.values import Vm
from headstart.store.memory import MemoryStore
from headstart.units import BLOCK_SIZE
from tests.kit import stores
from tests.kit.waiting import wait_until

#: 2026-03-02, a Monday, 00:00 UTC.
MIDNIGHT = 1772409600.0
HOUR = 3600.0
NIGHTLY = Policy(
    "nightly", Schedule(("02:00",), UTC), HeadStart(transports=(Transport.HOST,), begin_before=None, interval=900.0)
)
SECONDS = 20.0


class Home:
    """``now`` is wall time; it stands still unless the test moves it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = MIDNIGHT
        self.vms: dict[str, MemoryVm] = {}
        self.store = MemoryStore()
        repository.create(self.store, stores.PASSWORD, cost=stores.QUICK).close()
        self.journal = Journal.open(folder / "state")
        self.series = Series(self.journal)
        bucket = Bucket()
        self.vault = Vault(lambda: self.store, lambda: stores.PASSWORD, bucket)
        self.house = House(
            self.journal,
            self.series,
            self.vault,
            folder / "scratch",
            Slots(1),
            Slots(1),
            bucket,
            Tally(bucket),
            clock=lambda: self.now,
            connect=self._connect,
            images=lambda context, vm, excluded: self.sleeping(self.vms[vm.name]),
            look=lambda vm: self.looking(vm),
            sample=lambda images, interface: self.sample(images),
        )
        (folder / "scratch").mkdir()
        self.sample: Callable[[Sequence[Path]], Sample] = quiet_host
        self.looking: Callable[[Vm], Counters] = self._look
        self.connecting: Callable[[str], None] = lambda name: None
        self.sleeping: Callable[[MemoryVm], Machine | None] = at_rest
        self.excluded: set[str] = set()
        self.anew = threading.Event()
        self.config = Config(folder / "headstart.toml", (), Host(), policies={"nightly": NIGHTLY}, default="nightly")
        self.load: Callable[[], Config] = lambda: self.config
        self.daemon: Daemon | None = None

    def _connect(self, context: Context, vm: Vm, excluded: Container[str]) -> Machine:
        self.excluded = {name for name in self.vms[vm.name].drives if name in excluded}
        self.connecting(vm.name)
        return MemoryMachine(self.vms[vm.name], self.journal.installation, BLOCK_SIZE)

    def _look(self, vm: Vm) -> Counters:
        told = memory_counters.look(self.vms[vm.name])
        return replace(told, moment=time.monotonic())

    def add(self, name: str, blocks: int = 64, filled: int = 8) -> MemoryVm:
        vm = self.vms[name] = MemoryVm({"a": blocks * BLOCK_SIZE}, BLOCK_SIZE)
        for block in range(filled):
            vm.write("a", block)
        self.journal.add_vm(Vm(name, Path(f"/run/{name}.qmp"), added=self.now))
        return vm

    @contextlib.contextmanager
    def serving(self, **options: Any) -> Iterator[Daemon]:
        """A daemon that looks every few milliseconds."""
        served = Daemon(
            self.house,
            self.folder / "state",
            self.config,
            lambda: self.load(),
            self.anew.set,
            Notifier({}),
            **options,
        )
        with (
            mock.patch.multiple(ward, LOOK_SECONDS=0.02),
            mock.patch.multiple(retry, AGAIN_SECONDS=0.5),
            mock.patch.multiple(daemon, TICK_SECONDS=0.02, NOTICE_SECONDS=0.05, FAREWELL_SECONDS=5.0),
        ):
            thread = threading.Thread(target=served.serve, daemon=True)
            thread.start()
            try:
                wait_until(lambda: control.address(self.folder / "state").exists())
                yield served
            finally:
                served.stop()
                thread.join(10)
                assert not thread.is_alive(), "the daemon does not stop"

    def pass_time(self, seconds: float) -> bool:
        """A little later, for what is tried again and again."""
        self.now += seconds
        time.sleep(0.05)
        return True

    def ask(self, do: str, **values: Any) -> Any:
        return control.ask(self.folder / "state", {"do": do, **values})

    def status(self, name: str = "web") -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status", vm=name)["vms"][name]
        return found

    def verbs(self, name: str = "web") -> list[str]:
        """Of runs that succeeded, oldest first."""
        return [
            run.verb
            for run in reversed(Runs(self.journal).newest(name, 1000))
            if run.ended is not None and "error" not in run.report
        ]

    def repo(self) -> Repository:
        return repository.open(self.store, lambda: stores.PASSWORD)

    def snapshots(self) -> list[Any]:
        with self.repo() as repo:
            return sorted(snapshot.all_manifests(repo).manifests, key=lambda each: each.created)

    def content(self, manifest: Any) -> bytes:
        """Of disk ``a`` as it would be restored."""
        with self.repo() as repo:
            disk = manifest.disks[0]
            found = bytearray(disk.size)
            for block, chunk in tree.walk(repo, disk.root, disk.size, 0, disk.size // BLOCK_SIZE):
                found[block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE] = repo.read_chunk(chunk)
            return bytes(found)

    def close(self) -> None:
        self.journal.close()


def at_rest(vm: MemoryVm) -> Machine | None:
    return MemoryImages(vm) if vm.process is None else None


def quiet_host(images: Sequence[Path]) -> Sample:
    return Sample(time.monotonic(), None, {}, None, {})


def with_policy(home: Home, policy: Policy) -> None:
    """``policy`` instead of those that there are."""
    home.config = replace(home.config, policies={"nightly": policy})


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """In a short folder: lock files and sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="headstart-home-") as folder:
        made = Home(Path(folder))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def fresh() -> Iterator[Home]:
    with home() as made:
        yield made
