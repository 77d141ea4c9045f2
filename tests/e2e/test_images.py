"""What happens to images and to QEMU between two backups: each next one is exact, and says what it could not trust."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.hypervisor.qemu.bitmaps import QemuBitmaps
from headstart.transfer.spool import Spool
from headstart.units import KIB, MIB
from tests.e2e import bare
from tests.e2e.rig import Exact, Rig, disk_of
from tests.kit import compare, disks
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

START = 2 * MIB


vm = bare.vm
rig = bare.rig


def write_both(vm: Vm, number: int, offset: int | None = None) -> None:
    """A place of its own for each number, if none is given."""
    for disk in ("one", "two"):
        bare.write(vm, disk, START + number * 256 * KIB if offset is None else offset, 256 * KIB, number + 1)


def assert_compared(exact: Exact, disk: str, reason: str) -> None:
    """All was read, and what the last snapshot has was recognised."""
    found = exact.disk(disk)
    assert found.compared and reason in found.reason, found
    assert found.stored_bytes < 4 * MIB, found


def assert_trusted(exact: Exact, disk: str) -> None:
    found = exact.disk(disk)
    assert not found.compared and found.changed_bytes < 4 * MIB, found


def test_a_restart_costs_a_raw_disk_its_bitmaps_and_a_qcow2_nothing(vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    bare.restart(vm)
    write_both(vm, 1)
    exact = rig.exact_backup()
    assert_compared(exact, "two", "restarted")
    assert_trusted(exact, "one")
    assert exact.disk("one").precopied_bytes == 2 * 256 * KIB
    write_both(vm, 2)
    again = rig.exact_backup()
    assert_trusted(again, "one")
    assert_trusted(again, "two")


@pytest.mark.parametrize("stored", [False, True], ids=["new", "stored"])
def test_killed_qemu(vm: Vm, rig: Rig, stored: bool) -> None:
    """Bitmaps are gone then or, if the image had them from an earlier end, inconsistent."""
    rig.backup()
    if stored:
        bare.restart(vm)
    write_both(vm, 0)
    rig.precopy()
    write_both(vm, 1)
    vm.kill()
    vm.start()
    write_both(vm, 2)
    exact = rig.exact_backup()
    assert_compared(exact, "one", "inconsistent" if stored else "gone")
    assert_compared(exact, "two", "gone")
    assert_trusted(rig.exact_backup(), "one")


def copy_aside(vm: Vm) -> Callable[[], None]:
    """Copy the images while the VM is off. Returns what puts them back, into the same files."""
    copies = [(disk.path, disk.path.with_suffix(".copy")) for disk in vm.disks]
    vm.quit()
    for image, copy in copies:
        shutil.copyfile(image, copy)
    vm.start()

    def put_back() -> None:
        vm.quit()
        for image, copy in copies:
            with copy.open("rb") as source, image.open("r+b") as target:
                shutil.copyfileobj(source, target)
                target.truncate()
        vm.start()

    return put_back


def test_rolled_back_with_its_bitmaps(vm: Vm, rig: Rig) -> None:
    """The draft holds what was written after the copy was made: it is dropped; the base bitmap still serves."""
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    put_back = copy_aside(vm)
    write_both(vm, 1, START)
    write_both(vm, 2)
    rig.precopy()
    put_back()
    write_both(vm, 3)
    exact = rig.exact_backup()
    assert_trusted(exact, "one")


def test_rolled_back_to_before_the_last_backup(vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    put_back = copy_aside(vm)
    write_both(vm, 1, START)
    rig.backup()
    put_back()
    assert_compared(rig.exact_backup(), "one", "put back")


def test_rolled_back_to_after_a_failed_completion(vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A completion that failed has begun base bitmaps: they must not pass for those of the one that succeeded."""
    rig.backup()
    write_both(vm, 0)

    def fail(_: Spool) -> None:
        raise errors.NoSpace("planned")

    with monkeypatch.context() as patch, pytest.raises(errors.NoSpace, match="planned"):
        patch.setattr(Spool, "seal", fail)
        rig.backup()
    put_back = copy_aside(vm)
    write_both(vm, 1, START)
    rig.backup()
    put_back()
    write_both(vm, 2)
    assert_compared(rig.exact_backup(), "one", "put back")


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


def take_overlay(vm: Vm, folder: Path) -> None:
    vm.qmp(
        "blockdev-snapshot-sync",
        node_name="one",
        snapshot_file=str(folder / "overlay.qcow2"),
        snapshot_node_name="overlay",
        format="qcow2",
    )


def commit_overlay(vm: Vm) -> None:
    vm.qmp("block-commit", job_id="theirs", device="overlay")
    vm.wait_event("BLOCK_JOB_READY", device="theirs")
    vm.qmp("job-complete", id="theirs")
    vm.wait_event("BLOCK_JOB_COMPLETED", device="theirs")


def test_an_external_snapshot_by_someone_else(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    """Our bitmap says that it records, and stands below the node that is written."""
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    take_overlay(vm, tmp_path)
    write_both(vm, 1, START)
    write_both(vm, 2)
    assert_compared(rig.exact_backup(), "one", "backing chain")
    write_both(vm, 3)
    assert_trusted(rig.exact_backup(), "one")
    commit_overlay(vm)
    write_both(vm, 4)
    assert_compared(rig.exact_backup(), "one", "backing chain")


def test_an_external_snapshot_that_came_and_went(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    """Committing writes to our node: its bitmaps know."""
    rig.backup()
    take_overlay(vm, tmp_path)
    write_both(vm, 1, START)
    commit_overlay(vm)
    write_both(vm, 2)
    assert_trusted(rig.exact_backup(), "one")


def test_with_dash_snapshot(tmp_path: Path) -> None:
    """What is written is forgotten at the end; a backup meanwhile is what the guest sees."""
    with bare.started(bare.pair(tmp_path, blockdev=False)) as vm:
        rig = Rig(tmp_path / "rig", vm, qga=False)
        rig.backup()
        for number, arguments in enumerate([("-S", "-snapshot"), ("-S",)]):
            vm.quit()
            vm.extra = arguments
            vm.start()
            write_both(vm, number)
            assert_compared(rig.exact_backup(), "one", "backing chain")


def resize(vm: Vm, size: int, *, live: bool) -> None:
    if live:
        for disk in vm.disks:
            vm.qmp("block_resize", node_name=disk.name, size=size)
        return
    vm.quit()
    for disk in vm.disks:
        qemu_img("resize", "-q", "--shrink", "-f", disk.format, disk.path, str(size))
    vm.start()


@pytest.mark.parametrize("live", [False, True], ids=["off", "running"])
def test_shrunk_and_grown_with_a_backup_between(vm: Vm, rig: Rig, live: bool) -> None:
    rig.backup()
    for size in (bare.SIZE - 3 * MIB - 512, bare.SIZE + 5 * MIB + 512):
        write_both(vm, 0)
        rig.precopy()
        resize(vm, size, live=live)
        write_both(vm, 1)
        exact = rig.exact_backup()
        assert exact.disk("one").size == size
        if size < bare.SIZE:
            assert_compared(exact, "one", "it was shrunk")
            continue
        # Only the new part is read: of all disks, or of those whose bitmaps survive the end of QEMU.
        added = size - (bare.SIZE - 3 * MIB - 512)
        for disk in ("one", "two") if live else ("one",):
            found = exact.disk(disk)
            assert not found.compared and added <= found.changed_bytes <= added + (2 * 256 + 64) * KIB


@pytest.mark.parametrize("live", [False, True], ids=["off", "running"])
@pytest.mark.parametrize("at", [START // 2, bare.SIZE - 3 * MIB, bare.SIZE - 512])
def test_shrunk_and_grown_to_the_same_size(vm: Vm, rig: Rig, live: bool, at: int) -> None:
    """The end reads as zeroes now, and neither the size nor a bitmap tells."""
    for name in ("one", "two"):
        bare.write(vm, name, bare.SIZE - 4 * MIB, 4 * MIB, 7)
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    resize(vm, at, live=live)
    resize(vm, bare.SIZE, live=live)
    made = rig.backup(Options(audit=0))
    # qcow2 keeps the rest of a cluster that is cut.
    assert disk_of(made, "one").compared == (at < bare.SIZE - 512)
    restored = rig.restore(made.snapshot)
    vm.quit()
    for disk in vm.disks:
        compare.assert_identical(restored[disk.device_id], disk.path, "raw", disk.format)


def test_an_old_copy_of_the_state(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    shutil.copytree(rig.state, tmp_path / "old")
    write_both(vm, 1)
    rig.backup()
    write_both(vm, 2, START)
    rig.precopy()
    shutil.rmtree(rig.state)
    shutil.copytree(tmp_path / "old", rig.state)
    write_both(vm, 3)
    exact = rig.exact_backup()
    assert_compared(exact, "one", "gone")
    assert_compared(exact, "two", "gone")


def test_an_old_copy_of_the_state_within_one_draft(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    shutil.copytree(rig.state, tmp_path / "old")
    write_both(vm, 1, START)
    rig.precopy()
    write_both(vm, 2)
    shutil.rmtree(rig.state)
    shutil.copytree(tmp_path / "old", rig.state)
    assert_trusted(rig.exact_backup(), "one")


def test_the_state_is_lost(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    shutil.rmtree(rig.state)
    again = Rig(rig.folder, vm, qga=False)
    write_both(vm, 1)
    assert_compared(again.exact_backup(), "one", "does not know")


def test_a_disk_is_unplugged_and_another_one_added(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    vm.qmp("device_del", id="dev-two")
    vm.wait_event("DEVICE_DELETED", device="dev-two")
    without = rig.exact_backup()
    assert [disk.name for disk in without.report.disks] == ["dev-one"]
    assert any("dev-two" in note for note in without.report.notes)
    third = disks.make_filled(tmp_path / "three.qcow2", bare.SIZE // 2, "qcow2", seed=3)
    vm.qmp("blockdev-add", driver="qcow2", node_name="three", file={"driver": "file", "filename": str(third)})
    for name in ("two", "three"):
        vm.qmp("device_add", driver="scsi-hd", bus="bus-two.0", id=f"dev-{name}", drive=name, serial=name)
    bare.write(vm, "three", MIB, MIB, 3)
    write_both(vm, 1)
    exact = rig.exact_backup()
    assert_trusted(exact, "one")
    assert exact.disk("three").reason == "first backup"
    assert exact.disk("two").compared


def test_an_image_is_moved_and_another_one_converted(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    vm.quit()
    moved = vm.disk("one").path.rename(tmp_path / "moved.qcow2")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", vm.disk("two").path, tmp_path / "two.qcow2")
    pair = (
        disks.Disk(moved, "qcow2", "one", blockdev=True),
        disks.Disk(tmp_path / "two.qcow2", "qcow2", "two", "virtio-scsi", blockdev=True),
    )
    with bare.started(pair) as other:
        rig.follow(other)
        write_both(other, 1)
        exact = rig.exact_backup()
        assert_compared(exact, "one", "backing chain")
        assert_compared(exact, "two", "format")
        assert_trusted(rig.exact_backup(), "two")


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    """A CD-ROM, an empty drive, a read-only disk and one that the user excluded."""
    pair = bare.pair(tmp_path)
    fixed = disks.Disk(disks.make_filled(tmp_path / "fixed.raw", MIB), "raw", "fixed", read_only=True)
    iso = disks.make_filled(tmp_path / "cd.iso", MIB)
    drives = ("-drive", f"if=ide,media=cdrom,readonly=on,format=raw,file={iso}", "-device", "ide-cd,id=empty,bus=ide.1")
    with bare.started((*pair, fixed), *drives) as vm:
        rig = Rig(tmp_path / "rig", vm, qga=False, excluded=("dev-two",))
        exact = rig.exact_backup()
        assert list(exact.restored) == ["dev-one"]
        left_out = {each["name"]: each["reason"] for each in rig.inspect().left_out}
    assert left_out.pop("dev-two") == "excluded" and left_out.pop("dev-fixed") == "read-only"
    assert left_out.pop("empty") == "no medium"
    assert list(left_out.values()) == ["removable (CD-ROM or floppy)"]


@pytest.mark.parametrize("before", [1, 2, 3])
def test_rounds_that_fail_again_and_again(vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """Each of them has begun new round bitmaps: what any of those recorded is stale in the draft."""
    rig.backup()
    write_both(vm, 0)
    rig.precopy()

    def fail(*_: object) -> None:
        raise errors.Busy("planned")

    for number in range(3):
        if number == before:
            write_both(vm, 1, START)
        with monkeypatch.context() as patch, pytest.raises(errors.Busy, match="planned"):
            patch.setattr(QemuBitmaps, "_read", fail)
            rig.precopy()
    if before == 3:
        write_both(vm, 1, START)
    assert_trusted(rig.exact_backup(), "one")


def test_a_backing_chain_that_is_exchanged(tmp_path: Path) -> None:
    """The overlay is larger than what it stands on; `rebase -u` leaves no trace in it."""
    backing = disks.make_filled(tmp_path / "backing.raw", bare.SIZE // 2 + 512)
    other = disks.make_filled(tmp_path / "other.raw", bare.SIZE // 2 + 512, seed=5)
    overlay = tmp_path / "one.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, overlay, str(bare.SIZE))
    with bare.started([disks.Disk(overlay, "qcow2", "one")]) as vm:
        rig = Rig(tmp_path / "rig", vm, qga=False)
        rig.exact_backup()
        bare.write(vm, "one", START, MIB, 1)
        rig.precopy()
        vm.quit()
        qemu_img("rebase", "-q", "-u", "-F", "raw", "-b", other, overlay)
        vm.start()
        exact = rig.exact_backup()
        assert exact.disk("one").compared and "backing chain" in exact.disk("one").reason


def test_another_repository_in_the_middle_of_a_draft(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    """And back to the first one, whose last snapshot the bitmaps have left behind."""
    rig.backup()
    write_both(vm, 0)
    rig.precopy()
    first = rig.store
    rig.store = Rig(tmp_path / "second", vm).store
    write_both(vm, 1)
    full = rig.exact_backup()
    assert full.report.base is None and "not in this repository" in full.disk("one").reason
    rig.store = first
    write_both(vm, 2)
    assert_compared(rig.exact_backup(), "one", "not in this repository")
