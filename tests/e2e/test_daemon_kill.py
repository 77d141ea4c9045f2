"""The daemon is killed anywhere: a new one needs no help, and each scheduled moment has exactly one backup."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agents import wait_for_agentd
from tests.e2e.hosted import Hosted
from tests.e2e.rig import Rig
from tests.kit import disks, ledger, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 24 * MIB
FREE = 4 * MIB
DISKS = ("system", "data")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with Vm(disks.two_disks(tmp_path_factory.mktemp("disks"), SIZE, FREE)) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        wait_for_agentd(vm)
        yield vm


class Victim:
    """An installation whose daemon is killed while the guest keeps its ledger."""

    def __init__(self, folder: Path, vm: Vm, book: workloads.Ledger) -> None:
        self.rig = Rig(folder, vm, agent=True)
        self.daemon = Hosted(self.rig, constants={"headstart.backup.agenda:LEAST": 1.0})
        self._book = book
        self._numbers = itertools.count()
        self._moment = 0
        self.rig.backup()
        self._ids = set(self.rig.snapshots())

    def start(self, *faults: str, ahead: float = 5.0) -> None:
        """A backup is due in a moment; until then a slow round copies what was changed."""
        self.rig.vm.guest.write(self.rig.vm.device("data"), 2 * MIB, 6 * MIB, seed=next(self._numbers))
        if self.daemon.running:
            self.daemon.kill()
        calendar, self._moment = self.daemon.soon(ahead)
        self.daemon.configure(calendar, rate="4MiB/s")
        self.daemon.start(*faults)

    def assert_goes_on(self) -> None:
        """By itself: with one exact backup for the moment, rounds after it, and nothing left in the VM."""
        told = self._book.acknowledged()
        self._book.wait_acknowledged(told + 5, 15.0)
        self.rig.vm.guest.run("date > /mnt/now && sync", timeout=15)
        self.daemon.start()
        self.daemon.wait(self._made)
        count = len(self.daemon.runs("precopy"))
        self.daemon.wait(lambda: len(self.daemon.runs("precopy")) > count)
        assert self.daemon.status()["due"] > self._moment + 3600
        self.daemon.stop()
        [made] = [each for each in self.rig.manifests() if each.id not in self._ids]
        self._ids.add(made.id)
        assert made.created >= self._moment
        self.rig.assert_tidy()
        restored = self.daemon.restored_exactly(made.id)
        images = [restored[self.rig.called(disk)] for disk in DISKS]
        ledger.check(self._book.layout, images)

    def _made(self) -> bool:
        return set(self.rig.snapshots()) > self._ids


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, machine: Vm) -> Iterator[Victim]:
    devices = [machine.device(name) for name in DISKS]
    with workloads.ledger(machine.guest, devices, offset=SIZE - FREE, slots=100, pause=0.05) as book:
        made = Victim(tmp_path_factory.mktemp("victim"), machine, book)
        with made.daemon:
            yield made


def test_while_it_waits(victim: Victim) -> None:
    # A busy machine needs some of it before there is a round.
    victim.start(ahead=12.0)
    victim.daemon.wait_said("by=agent", count=victim.daemon.log.count("by=agent") + 1)
    victim.daemon.wait(lambda: victim.daemon.status()["state"] == "waiting")
    victim.daemon.kill()
    victim.assert_goes_on()


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        ("--before", "headstart.backup.identify:run:1"),
        ("--before", "headstart.backup.precopy:run:1"),
        ("--before", "headstart.load.throttle:Throttle.wait:2"),
        ("--before", "headstart.backup.records:record:1"),
    ],
    ids=["before-identification", "after-identification", "copying", "copied"],
)
def test_in_a_round(victim: Victim, moment: str, place: str) -> None:
    victim.start(moment, place)
    victim.daemon.wait_killed()
    victim.assert_goes_on()


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        ("--after", "headstart.hypervisor.qemu.freeze:ThroughQga.freeze:1"),
        ("--before", "headstart.backup.comparison:compare:1"),
        ("--before", "headstart.backup.complete:Completing._spool:2"),
        ("--before", "headstart.backup.publish:run:1"),
        ("--before", "headstart.repository.snapshot:publish:1"),
        ("--before", "headstart.state.journal:Journal.published:1"),
        ("--before", "headstart.repository.draft:drop:1"),
    ],
    ids=["frozen", "auditing", "spooling", "spooled", "before-the-manifest", "after-the-manifest", "published"],
)
def test_in_a_backup(victim: Victim, moment: str, place: str) -> None:
    victim.start(moment, place)
    victim.daemon.wait_killed()
    victim.assert_goes_on()
