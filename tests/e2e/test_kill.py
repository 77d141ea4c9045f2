"""The tool is killed anywhere: the guest goes on, and the next run needs no option and is exact."""

from __future__ import annotations

import itertools
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e import piecemeal
from tests.e2e.rig import NAME, Rig
from tests.kit import disks, workloads
from tests.kit.cli import Cli
from tests.kit.vm import Vm
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
SIZE = 16 * MIB
FREE = 4 * MIB
DISKS = ("system", "data")
COMMIT = "headstart.state.journal:Journal._commit"
PIECEMEAL = "tests.e2e.piecemeal:main"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """The usual pair, and a disk in an iothread: a point in time that includes it is copied by QEMU's jobs."""
    folder = tmp_path_factory.mktemp("disks")
    threaded = disks.Disk(disks.make_filled(folder / "io.qcow2", SIZE // 2, "qcow2"), "qcow2", "io", iothread=True)
    with Vm((*disks.two_disks(folder, SIZE, FREE), threaded)) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


class Victim:
    """An installation whose runs are killed while the guest keeps its ledger."""

    def __init__(self, rig: Rig, book: workloads.Ledger) -> None:
        self.rig = rig
        self._vm = rig.vm
        self._book = book
        self._numbers = itertools.count()
        self._devices = {disk: rig.vm.device(disk) for disk in DISKS}
        rig.backup()

    def start(self, verb: str, *faults: str, **environment: str) -> subprocess.Popen[str]:
        """A run with faults planted, upon a draft of which some blocks are good and some were written again."""
        for disk in DISKS:
            self._write(disk, 0, 8)
        self.rig.precopy()
        for disk in DISKS:
            self._write(disk, 2, 4)
        return Cli(self.rig.folder, **environment).start(verb, NAME, faults=faults)

    def kill(self, verb: str, *faults: str) -> int:
        """The exit status of a run with faults planted."""
        process = self.start(verb, *faults)
        said = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), said
        return process.returncode

    def _write(self, disk: str, first: int, count: int) -> None:
        start = SIZE - FREE + 2 * MIB + first * BLOCK
        self._vm.guest.write(self._devices[disk], start, count * BLOCK, seed=next(self._numbers))

    def assert_unharmed(self) -> None:
        """The guest runs and writes, also to its file system; the next backup is exact and leaves nothing behind."""
        self._book.wait_acknowledged(self._book.acknowledged() + 5)
        self._vm.guest.run("date > /mnt/now && sync", timeout=10)
        for disk in DISKS:
            self._write(disk, 4, 2)
        exact = self.rig.exact_backup()
        assert not any(disk.compared for disk in exact.report.disks), exact.report


@pytest.fixture(scope="module")
def book(machine: Vm) -> Iterator[workloads.Ledger]:
    devices = [machine.device(name) for name in DISKS]
    with workloads.ledger(machine.guest, devices, offset=SIZE - FREE, slots=100, pause=0.05) as running:
        yield running


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory, machine: Vm, book: workloads.Ledger) -> Victim:
    return Victim(Rig(tmp_path_factory.mktemp("filters"), machine, excluded=("dev-io",)), book)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, machine: Vm, book: workloads.Ledger) -> Victim:
    return Victim(Rig(tmp_path_factory.mktemp("jobs"), machine), book)


@pytest.mark.parametrize("verb", ["precopy", "backup"])
def test_before_every_commit_of_the_journal(filters: Victim, verb: str) -> None:
    for number in itertools.count(1):
        status = filters.kill(verb, "--before", f"{COMMIT}:{number}")
        filters.assert_unharmed()
        if status == 0:
            break
    assert number > {"precopy": 6, "backup": 10}[verb], "there are commits to be killed at"


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        ("--before", "headstart.tracking.tracker:Tracker.rotate"),
        ("--before", "headstart.hypervisor.qemu.exports:remove"),
        ("--after", "headstart.hypervisor.qemu.freeze:ThroughQga.freeze"),
        ("--before", "headstart.hypervisor.qemu.pull:PullPoint._offer"),
        ("--before", "headstart.backup.comparison:compare"),
        ("--after", "headstart.hypervisor.qemu.pull:put_back"),
        ("--before", "headstart.backup.publish:run"),
        ("--before", "headstart.repository.draft:drop"),
    ],
)
def test_with_filters(filters: Victim, moment: str, place: str) -> None:
    assert filters.kill("backup", moment, f"{place}:1") == -signal.SIGKILL
    filters.assert_unharmed()


@pytest.mark.parametrize(
    ("moment", "place"),
    [
        ("--before", "headstart.hypervisor.qemu.push:PushPoint._target:2"),
        ("--before", "headstart.hypervisor.qemu.fleece:Fleece._tell:1"),
        ("--before", "headstart.hypervisor.qemu.push:PushPoint._learn:1"),
        ("--before", "headstart.hypervisor.qemu.jobs:end:2"),
    ],
)
def test_with_jobs(jobs: Victim, moment: str, place: str) -> None:
    assert jobs.kill("backup", moment, place) == -signal.SIGKILL
    jobs.assert_unharmed()


@pytest.mark.parametrize("sent", [1, 3], ids=["stop", "filters"])
def test_between_stop_and_cont(machine: Vm, filters: Victim, sent: int) -> None:
    """The guard continues the VM as soon as the tool is gone."""
    before = len(machine.events("RESUME"))
    status = filters.kill("backup", "--main", PIECEMEAL, "--after", f"tests.e2e.piecemeal:send:{sent}")
    assert status == -signal.SIGKILL
    wait_until(lambda: len(machine.events("RESUME")) > before)
    filters.assert_unharmed()


def test_hanging_between_stop_and_cont(machine: Vm, filters: Victim) -> None:
    """The guard does not wait for longer than a guest can be expected to."""
    before = len(machine.events("RESUME"))
    with filters.start("backup", "--main", PIECEMEAL, **{piecemeal.HANG: "3"}) as process:
        wait_until(lambda: len(machine.events("RESUME")) > before)
        process.kill()
    stopped, resumed = (machine.events(name)[-1]["timestamp"] for name in ("STOP", "RESUME"))
    assert resumed["seconds"] - stopped["seconds"] + (resumed["microseconds"] - stopped["microseconds"]) / 1e6 < 0.5
    filters.assert_unharmed()
