"""What else goes on in a VM: resets, other people's jobs and exports. They come first, and never suffer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.hypervisor.qemu import obstacles
from tests.e2e.rig import Rig
from tests.kit import disks, ledger, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 64 * MIB
FREE = 16 * MIB
DISKS = ("system", "data")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with Vm(disks.two_disks(tmp_path_factory.mktemp("disks"), SIZE, FREE)) as vm:
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Rig:
    return Rig(tmp_path / "rig", machine)


def written(vm: Vm) -> workloads.Ledger:
    devices = [vm.device(name) for name in DISKS]
    return workloads.ledger(vm.guest, devices, offset=SIZE - FREE, slots=100, pause=0.01)


def test_a_reset_in_the_middle_of_a_draft(machine: Vm, rig: Rig) -> None:
    book = written(machine)
    rig.backup()
    book.wait_acknowledged(book.acknowledged() + 20)
    rig.precopy()
    acknowledged = book.acknowledged()
    machine.reset()
    exact = rig.exact_backup()
    assert all(disk.precopied_bytes and not disk.compared for disk in exact.report.disks)
    images = [exact.restored[f"dev-{name}"] for name in DISKS]
    ledger.check(book.layout, images, acknowledged=acknowledged)


def test_a_foreign_nbd_server_is_left_alone(tmp_path: Path, machine: Vm, rig: Rig) -> None:
    rig.backup()
    theirs = tmp_path / "nbd"
    machine.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(theirs)}})
    machine.qmp("block-export-add", type="nbd", id="theirs", node_name="data", name="theirs")
    try:
        for verb in (rig.precopy, rig.backup):
            with pytest.raises(errors.Busy, match="NBD server"):
                verb()
            assert [export["id"] for export in machine.qmp("query-block-exports")] == ["theirs"]
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(theirs))
                assert client.recv(8) == b"NBDMAGIC"
    finally:
        machine.qmp("nbd-server-stop")
    rig.exact_backup()


def test_a_foreign_mirror_is_waited_for_and_named(
    tmp_path: Path, machine: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds go on beside it; a point in time has to wait, and the user is told for what."""
    rig.backup()
    start_job(machine, "mirror", "system", tmp_path, speed=MIB)
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 0.1)
    machine.guest.write(machine.device("system"), SIZE - FREE, MIB, seed="mirror")
    assert rig.precopy().copied_bytes >= MIB
    with pytest.raises(errors.Busy, match="mirror"):
        rig.backup()
    assert [job["id"] for job in machine.qmp("query-jobs")] == ["theirs"]
    assert machine.qmp("query-status")["running"]
    machine.qmp("block-job-cancel", device="theirs", force=True)
    machine.wait_event("BLOCK_JOB_CANCELLED", device="theirs")
    machine.qmp("blockdev-del", node_name="their-target")
    assert rig.exact_backup().disk("system").precopied_bytes >= MIB


def test_a_foreign_job_that_ends_is_waited_for(tmp_path: Path, machine: Vm, rig: Rig) -> None:
    rig.backup()
    start_job(machine, "backup", "data", tmp_path, speed=24 * MIB)
    began = time.monotonic()
    made = rig.backup()
    assert time.monotonic() - began > 0.5
    assert not machine.qmp("query-jobs") and made.audit.mismatched_bytes == 0
    machine.qmp("blockdev-del", node_name="their-target")


def start_job(vm: Vm, kind: str, disk: str, folder: Path, speed: int) -> None:
    """A job of somebody else over the whole disk, ``speed`` bytes per second."""
    size = vm.qmp("query-named-block-nodes", flat=True)
    length = next(node["image"]["virtual-size"] for node in size if node["node-name"] == disk)
    target = disks.make_empty(folder / "target.raw", length)
    vm.qmp("blockdev-add", driver="raw", node_name="their-target", file={"driver": "file", "filename": str(target)})
    vm.qmp(f"blockdev-{kind}", job_id="theirs", device=disk, target="their-target", sync="full", speed=speed)
