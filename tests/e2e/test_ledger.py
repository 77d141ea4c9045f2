"""Under default protection, restored disks are one moment of the guest, and hold all that it had been promised.

The ledger (tests.kit.ledger) writes numbered records to both disks in turn, each begun after the one before is on its
disk; its checker accepts nothing but the state between two of them.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headstart.backup.complete import Options
from headstart.backup.report import BackupReport
from tests.e2e import ext4
from tests.e2e.rig import Rig
from tests.kit import disks, ledger, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 128 * MIB
FREE = 16 * MIB
DISKS = ("system", "data")


@pytest.fixture(scope="module", params=["filters", "jobs"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """Two disks; where one is in an iothread, QEMU's own jobs copy the point in time, else filters preserve it."""
    system, data = disks.two_disks(tmp_path_factory.mktemp("disks"), SIZE, FREE)
    system = dataclasses.replace(system, iothread=request.param == "jobs")
    with Vm((system, data)) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", machine)
    yield made
    made.release()


class Witness:
    """Backs up while the ledger is written, and has the checker judge what is restored."""

    def __init__(self, rig: Rig, book: workloads.Ledger) -> None:
        self._rig = rig
        self._book = book
        self.last = 0

    def backup(self, options: Options) -> BackupReport:
        acknowledged = 0

        def note(_: Mapping[str, str]) -> None:
            nonlocal acknowledged
            self._book.wait_acknowledged(self.last + 20)
            acknowledged = self._book.acknowledged()

        made = self._rig.backup(options, before_freeze=note)
        begun = self._book.acknowledged() + 1
        self._rig.assert_tidy()
        restored = self._rig.restore(made.snapshot)
        images = [restored[f"dev-{name}"] for name in DISKS]
        self.last = ledger.check(self._book.layout, images, acknowledged=acknowledged, begun=begun).last
        if made.consistency == "filesystem":
            ext4.assert_clean(images[0])
        else:
            ext4.assert_recovers(images[0])
        return made


def test_restored_disks_are_one_moment(machine: Vm, rig: Rig) -> None:
    devices = [machine.device(name) for name in DISKS]
    regions = [workloads.Region("/mnt/churn", 0, 16 * MIB)]
    with (
        workloads.churn(machine.guest, regions, rate=4 * MIB),
        workloads.ledger(machine.guest, devices, offset=SIZE - FREE, slots=200) as book,
    ):
        witness = Witness(rig, book)
        full = witness.backup(Options())
        rig.precopy()
        book.wait_acknowledged(witness.last + 50)
        rig.precopy()
        incremental = witness.backup(Options(audit=100))
        plain = witness.backup(Options(plain=True, audit=100))
        unfrozen = witness.backup(Options(freeze=False, audit=100))
    made = (full, incremental, plain, unfrozen)
    assert [report.consistency for report in made] == ["filesystem", "filesystem", "filesystem", "crash"]
    assert all(report.audit.sampled_bytes > 0 and report.audit.mismatched_bytes == 0 for report in made)
    assert all(report.freeze_seconds > 0 for report in made[:3])
    assert not any(disk.compared for report in made for disk in report.disks)
    check_qcow2(rig, plain)


def check_qcow2(rig: Rig, made: BackupReport) -> None:
    """The other format of a restore is sound in itself."""
    for path in rig.restore(made.snapshot, "qcow2").values():
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True, capture_output=True)
