"""The guest writes all the time; what is restored equals the point in time in every byte."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headstart.backup.complete import Options
from headstart.tracking.choice import Wish
from tests.e2e.rig import NAME, Rig, digest
from tests.e2e.virt import VirtRig
from tests.kit import disks, workloads
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
#: Sizes that are no multiple of a block.
DATA_SIZE = 32 * MIB + 5 * disks.SECTOR
ODD_SIZE = 12 * MIB + BLOCK + 3 * disks.SECTOR
#: Nothing else writes here on the disk ``data``.
QUIET = 20 * MIB


@pytest.fixture(scope="module", params=["qemu", "libvirt"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm | Domain]:
    """A qcow2 and another disk that a workload writes to as long as the VM lives, and an odd qcow2 disk. The other
    one is raw; through libvirt, where nothing records raw disks, it is not."""
    folder = tmp_path_factory.mktemp("disks")
    form: disks.Format = "raw" if request.param == "qemu" else "qcow2"
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", 48 * MIB, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data", DATA_SIZE, form), form, "data", interface="virtio-scsi"),
        disks.Disk(disks.make_empty(folder / "odd.qcow2", ODD_SIZE, "qcow2"), "qcow2", "odd"),
    )
    with contextlib.ExitStack() as stack:
        vm: Vm | Domain
        if request.param == "qemu":
            vm = stack.enter_context(Vm(chosen))
        else:
            vm = stack.enter_context(Domain(stack.enter_context(Libvirtd()), "exact", chosen))
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Vm | Domain) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", machine) if isinstance(machine, Vm) else VirtRig(tmp_path / "rig", machine)
    yield made
    made.release()
    assert not any(made.bitmaps().values())


def test_cycles_of_rounds_under_constant_writes(machine: Vm | Domain, rig: Rig, churn: workloads.Churn) -> None:
    """A full backup, incremental ones and a plain one, each of them whole by itself."""
    data = machine.device("data")
    made = []
    for number in range(4):
        for turn in range(2):
            churn.wait_changed((2 * number + turn) * MIB)
            machine.guest.write(data, QUIET + turn * MIB, MIB, seed=f"{number}{turn}")
            rig.precopy()
        made.append(rig.exact_backup(Options(plain=number == 2)))
    full, second, plain, last = (exact.report for exact in made)
    assert full.base is None and (second.base, plain.base, last.base) == tuple(rig.snapshots()[:3])
    assert not any(disk.compared for report in (second, plain, last) for disk in report.disks)
    for report in (full, second, last):
        assert all(disk.precopied_bytes >= 2 * MIB for disk in report.disks if disk.name == rig.called("data")), report
    for disk in plain.disks:
        assert disk.precopied_bytes == 0 and disk.residue_bytes == disk.changed_bytes
    assert {report.consistency for report in (full, second, plain, last)} == {"filesystem"}


def test_comparison_alone_under_constant_writes(machine: Vm | Domain, rig: Rig, churn: workloads.Churn) -> None:
    """Nothing records: all is read, ahead and in the window, and nothing of ours ever stands in the VM."""
    with rig.journal() as journal:
        journal.track(NAME, Wish.COMPARE)
    made = []
    for number in range(2):
        churn.wait_changed((number + 1) * MIB)
        machine.guest.write(machine.device("data"), QUIET, MIB, seed=f"compared {number}")
        rig.precopy()
        assert not any(rig.bitmaps().values())
        made.append(rig.exact_backup().report)
    for each in made:
        assert {disk.tracking for disk in each.disks} == {"comparison"}
        assert sum(disk.precopied_bytes for disk in each.disks) >= MIB, "what a round had copied was used"
    for each in made[1:]:
        assert sum(disk.changed_bytes for disk in each.disks) < 40 * MIB, "what is as it was is not stored again"


def test_blocks_written_again_right_before_the_point(machine: Vm | Domain, rig: Rig, churn: workloads.Churn) -> None:
    """What the draft has is stale by then: it is read again from the point in time, and nothing else of it is."""
    data = machine.device("data")
    rig.exact_backup()

    def rewrite(_: Mapping[str, str]) -> None:
        machine.guest.write(data, QUIET, MIB, seed="again")
        machine.guest.write(data, QUIET + 3 * MIB + 512, 512, seed="one sector")

    machine.guest.write(data, QUIET, 4 * MIB, seed="first")
    rig.precopy()
    exact = rig.exact_backup(before_freeze=rewrite)
    found = exact.disk("data")
    assert found.residue_bytes >= MIB + BLOCK
    assert found.precopied_bytes >= 3 * MIB - BLOCK


def test_writes_while_the_point_stands_are_not_in_it(machine: Vm | Domain, rig: Rig) -> None:
    """The next backup has them: also where the first one only just read them."""
    data, odd = machine.device("data"), machine.device("odd")
    machine.guest.write(data, QUIET, 2 * MIB, seed="before")
    before = machine.guest.hash(data), machine.guest.hash(odd)

    def write(_: Mapping[str, str]) -> None:
        machine.guest.write(data, QUIET, MIB, seed="after")
        machine.guest.write(odd, MIB, MIB, seed="after")

    first = rig.exact_backup(after_thaw=write)
    assert (digest(first.image("data")), digest(first.image("odd"))) == before
    second = rig.exact_backup()
    after = machine.guest.hash(data), machine.guest.hash(odd)
    assert (digest(second.image("data")), digest(second.image("odd"))) == after
    assert second.disk("data").changed_bytes == second.disk("odd").changed_bytes == MIB


def test_trims_zeroes_and_the_last_short_block(machine: Vm | Domain, rig: Rig) -> None:
    """Of blocks that the last snapshot has, of blocks of the draft, and right before the point."""
    guest, data, odd = machine.guest, machine.device("data"), machine.device("odd")
    end = ODD_SIZE - 3 * disks.SECTOR
    guest.write(odd, 0, 8 * MIB, seed="odd")
    guest.write(odd, end, 3 * disks.SECTOR, seed="end")
    guest.write(data, QUIET, 8 * MIB, seed="data")
    guest.write(data, DATA_SIZE - 5 * disks.SECTOR, 5 * disks.SECTOR, seed="end")
    rig.exact_backup()

    for device, start in ((odd, 0), (data, QUIET)):
        guest.discard(device, start, MIB)
        guest.write_zeroes(device, start + MIB, MIB)
        guest.write(device, start + 2 * MIB, MIB, byte=0)
        guest.write(device, start + 3 * MIB, 2 * MIB, seed="new")
        # Parts of a block, from its middle on.
        guest.discard(device, start + 6 * MIB + BLOCK // 2, BLOCK)
        guest.write_zeroes(device, start + 7 * MIB + 3 * 512, 512)
    guest.write(odd, end, 2 * disks.SECTOR, byte=0)
    rig.precopy()

    def again(_: Mapping[str, str]) -> None:
        for device, start in ((odd, 0), (data, QUIET)):
            guest.discard(device, start + 3 * MIB, MIB)
            guest.write_zeroes(device, start + 4 * MIB, MIB)
        guest.write_zeroes(odd, end, 3 * disks.SECTOR)
        guest.discard(data, DATA_SIZE - 5 * disks.SECTOR, 5 * disks.SECTOR)

    exact = rig.exact_backup(before_freeze=again)
    assert digest(exact.image("odd")) == guest.hash(odd)
    assert digest(exact.image("data")) == guest.hash(data)


def test_a_quiet_disk_costs_nothing(machine: Vm | Domain, rig: Rig) -> None:
    rig.backup()
    again = rig.exact_backup(Options(freeze=False))
    for disk in again.report.disks:
        if disk.name != rig.called("system"):  # ext4 writes by itself
            assert disk.changed_bytes == disk.residue_bytes == disk.stored_bytes == 0


def test_a_lost_bitmap_under_constant_writes(machine: Vm | Domain, rig: Rig, churn: workloads.Churn) -> None:
    """The disk is compared while it is written to."""
    rig.backup()
    rig.lose_bitmaps("data")
    churn.wait_changed(MIB)
    exact = rig.exact_backup()
    assert exact.disk("data").compared and not exact.disk("system").compared
