"""A VM that is off is backed up from its images: exactly, without a change in them, and without standing in its way."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.backup import cycle
from headstart.backup.complete import Options
from headstart.backup.hooks import BEFORE_FREEZE, Hook
from headstart.backup.report import BackupReport
from headstart.hypervisor.offline import OfflinePoint
from headstart.units import MIB
from tests.e2e import bare
from tests.e2e.rig import NAME, Rig, digest, disk_of
from tests.kit import compare, disks
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

START = bare.START
PIECE = bare.PIECE


vm = bare.vm
rig = bare.rig


def offline_backup(vm: Vm, rig: Rig, options: Options | None = None) -> BackupReport:
    """Whose restored disks are the images, byte by byte; which it has not touched."""
    before = [disk.path.read_bytes() for disk in vm.disks]
    made = rig.backup(options)
    assert made.consistency == "offline" and made.window_seconds == 0 and any("was off" in note for note in made.notes)
    assert [disk.path.read_bytes() for disk in vm.disks] == before
    assert made.audit.mismatched_bytes == 0
    assert_is(rig, made, vm.disks)
    assert [path.name for path in rig.scratch.iterdir()] == ["spool"], "something is left"
    return made


def assert_is(rig: Rig, made: BackupReport, vm_disks: Sequence[disks.Disk]) -> None:
    restored = rig.restore(made.snapshot)
    for disk in vm_disks:
        compare.assert_identical(restored[disk.device_id], disk.path, "raw", disk.format)


def test_after_a_clean_end_only_what_changed_is_read(vm: Vm, rig: Rig) -> None:
    first = rig.backup()
    bare.write_both(vm, 0)
    rig.precopy()
    bare.write_both(vm, 1)
    vm.quit()
    made = offline_backup(vm, rig)
    one, two = disk_of(made, "one"), disk_of(made, "two")
    assert made.base == first.snapshot and not one.compared
    assert (one.changed_bytes, one.precopied_bytes, one.residue_bytes) == (2 * PIECE, PIECE, PIECE)
    # A raw image keeps no bitmaps.
    assert two.compared and two.changed_bytes == 2 * PIECE
    # The next night, and nobody started it.
    again = offline_backup(vm, rig)
    assert again.base == made.snapshot and not sum(disk.stored_bytes for disk in again.disks)
    vm.start()
    bare.write_both(vm, 2)
    rig.precopy()
    bare.write_both(vm, 3)
    exact = rig.exact_backup()
    assert exact.report.base == again.snapshot
    assert not exact.disk("one").compared and exact.disk("one").changed_bytes == 4 * PIECE
    assert exact.disk("two").compared
    for disk in ("one", "two"):
        assert not rig.exact_backup().disk(disk).compared


def test_after_a_kill_everything_is_compared(vm: Vm, rig: Rig) -> None:
    rig.backup()
    bare.restart(vm)
    bare.write_both(vm, 0)
    rig.precopy()
    bare.write_both(vm, 1)
    vm.kill()
    made = offline_backup(vm, rig)
    for disk in ("one", "two"):
        found = disk_of(made, disk)
        # What was copied ahead is recognised by its content.
        assert found.compared and found.residue_bytes == PIECE
    assert "inconsistent" in disk_of(made, "one").reason
    vm.start()
    bare.write_both(vm, 2)
    assert rig.exact_backup().disk("one").compared
    assert not rig.exact_backup().disk("one").compared


def once(action: Callable[[], None]) -> Callable[[Mapping[str, str]], None]:
    """At the first time that a step is reached."""
    done: list[bool] = []

    def act(_: Mapping[str, str]) -> None:
        if not done:
            done.append(True)
            action()

    return act


@pytest.mark.parametrize("step", ["reader", "check"])
def test_a_vm_that_is_started_while_its_images_are_read(
    vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nothing is in its way, what was read is thrown away, and the backup is made of the running VM."""
    first = rig.backup()
    bare.write_both(vm, 0)
    vm.quit()

    right = getattr(OfflinePoint, step)

    def start_before(*given: Any) -> Any:
        if not vm.running:
            vm.start()
            bare.write_both(vm, 1)
        return right(*given)

    # On this thread: QEMU would end with a hook's.
    monkeypatch.setattr(OfflinePoint, step, start_before)
    made = rig.backup()
    assert made.consistency == "crash" and any("begun again: the VM was started" in note for note in made.notes)
    assert made.base == first.snapshot and rig.snapshots() == [first.snapshot, made.snapshot]
    assert not disk_of(made, "one").compared and disk_of(made, "one").changed_bytes == 2 * PIECE
    rig.assert_tidy()
    vm.quit()
    assert_is(rig, made, vm.disks)


def test_a_vm_that_came_and_went_while_its_images_were_read(vm: Vm, rig: Rig) -> None:
    rig.backup()
    vm.quit()

    def start_and_end() -> None:
        vm.start()
        bare.write_both(vm, 0)
        vm.quit()

    made = rig.backup(before_release=once(start_and_end))
    assert made.consistency == "offline" and any("was changed" in note for note in made.notes)
    assert_is(rig, made, vm.disks)


def edit(disk: disks.Disk, offset: int, pattern: int) -> None:
    command = ["qemu-io", "-f", disk.format, "-c", f"write -P {pattern} {offset} {PIECE}", str(disk.path)]
    subprocess.run(command, check=True, capture_output=True)


def edit_both(vm: Vm, number: int) -> None:
    for disk in vm.disks:
        edit(disk, START + number * PIECE, 100 + number)


def test_images_that_are_edited_offline(vm: Vm, rig: Rig) -> None:
    """Before, while and after they are read."""
    rig.backup()
    bare.write_both(vm, 0)
    rig.precopy()
    vm.quit()
    edit_both(vm, 0)
    made = offline_backup(vm, rig)
    # QEMU's own tools keep the bitmaps of a qcow2 up to date.
    assert not disk_of(made, "one").compared and disk_of(made, "one").precopied_bytes == 0
    edit_both(vm, 1)
    made = rig.backup(before_release=once(lambda: edit_both(vm, 2)))
    assert any("was changed" in note for note in made.notes)
    assert_is(rig, made, vm.disks)
    edit_both(vm, 3)
    vm.start()
    exact = rig.exact_backup()
    assert not exact.disk("one").compared and exact.disk("two").compared


@pytest.mark.parametrize("size", [bare.SIZE + 5 * MIB + 512, bare.SIZE - 3 * MIB - 512], ids=["grown", "shrunk"])
def test_disks_that_are_resized_offline(vm: Vm, rig: Rig, size: int) -> None:
    rig.backup()
    bare.write_both(vm, 0)
    rig.precopy()
    vm.quit()
    for disk in vm.disks:
        resize(disk, size)
    made = offline_backup(vm, rig)
    assert {disk.size for disk in made.disks} == {size}
    one = disk_of(made, "one")
    if size > bare.SIZE:
        assert not one.compared and one.changed_bytes == size - bare.SIZE + PIECE
    else:
        assert one.compared and "shrunk" in one.reason
    vm.start()
    bare.write_both(vm, 1)
    rig.exact_backup()
    assert not rig.exact_backup().disk("one").compared


def resize(disk: disks.Disk, size: int) -> None:
    command = ["qemu-img", "resize", "-q", "--shrink", "-f", disk.format, str(disk.path), str(size)]
    subprocess.run(command, check=True, capture_output=True)


def test_an_image_that_is_put_back_after_an_offline_backup(vm: Vm, rig: Rig) -> None:
    """It has the base bitmap of the backup before, which knows less than the offline backup was made of."""
    rig.backup()
    bare.write_both(vm, 0)
    vm.quit()
    old = [disk.path.read_bytes() for disk in vm.disks]
    vm.start()
    bare.write_both(vm, 1)
    vm.quit()
    offline_backup(vm, rig)
    for disk, content in zip(vm.disks, old, strict=True):
        disk.path.write_bytes(content)
    vm.start()
    exact = rig.exact_backup()
    assert not exact.disk("one").compared and exact.disk("one").changed_bytes == 2 * PIECE
    bare.restart(vm)
    vm.quit()
    assert_is(rig, exact.report, vm.disks)


def test_an_overlay_is_read_with_what_it_stands_on(tmp_path: Path) -> None:
    backing = disks.make_filled(tmp_path / "backing.raw", bare.SIZE // 2)
    other = disks.make_filled(tmp_path / "other.raw", bare.SIZE // 2, seed=5)
    overlay = tmp_path / "one.qcow2"
    command = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "backing.raw",
        str(overlay),
        str(bare.SIZE),
    ]
    subprocess.run(command, check=True)
    with bare.started([disks.Disk(overlay, "qcow2", "one")]) as vm:
        rig = Rig(tmp_path / "rig", vm, qga=False)
        rig.backup()
        bare.write(vm, "one", START, MIB, 1)
        vm.quit()
        made = offline_backup(vm, rig)
        assert not disk_of(made, "one").compared and disk_of(made, "one").changed_bytes == MIB
        # Its content is another one now, as long as nobody told QEMU otherwise.
        subprocess.run(["qemu-img", "rebase", "-q", "-u", "-F", "raw", "-b", other, overlay], check=True)
        with pytest.raises(errors.Unreachable, match=r"stands on .*other\.raw and not on .*backing\.raw"):
            rig.backup()
        vm.start()
        assert rig.exact_backup().disk("one").compared
        assert backing.exists()


def test_what_keeps_images_from_being_read_is_told(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    rig.backup()
    vm.quit()
    with pytest.raises(errors.Unreachable, match="QMP socket"):
        rig.precopy()
    with subprocess.Popen(["qemu-io", "-f", "qcow2", vm.disks[0].path], stdin=subprocess.PIPE, stdout=-1) as holder:
        assert holder.stdout and holder.stdin
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        with pytest.raises(errors.Unreachable, match="open for writing"):
            rig.backup()
        holder.stdin.close()
    vm.disks[0].path.rename(tmp_path / "moved")
    with pytest.raises(errors.Unreachable, match="is not there"):
        rig.backup()
    (tmp_path / "moved").rename(vm.disks[0].path)
    unknown = Rig(tmp_path / "unknown", vm, qga=False)
    with pytest.raises(errors.Unreachable, match="QMP socket"):
        unknown.backup()
    # What was asked for in the guest is not asked of nobody; the policy's freeze is fulfilled.
    refusing = Options(hooks=(Hook(BEFORE_FREEZE, "exit 1"),), frozen=True)
    with rig.context() as context:
        assert cycle.backup(context, NAME, refusing).consistency == "offline"


def test_a_guest_that_shut_down(tmp_path: Path) -> None:
    size, free = 64 * MIB, 16 * MIB
    with Vm(disks.two_disks(tmp_path, size, free)) as vm:
        rig = Rig(tmp_path / "rig", vm)
        rig.backup()
        device = vm.device("system")
        vm.guest.write(device, size - free, MIB, seed="ahead")
        rig.precopy()
        vm.guest.write(device, size - free + 2 * MIB, MIB, seed="late")
        content = {name: vm.guest.hash(vm.device(name)) for name in ("system", "data")}
        vm.power_off()
        made = offline_backup(vm, rig)
        found = disk_of(made, "system")
        assert not found.compared and found.precopied_bytes >= MIB and found.residue_bytes >= MIB
        restored = rig.restore(made.snapshot)
        assert {name: digest(restored[f"dev-{name}"]) for name in content} == content
        vm.start()
        vm.wait_ready()
        vm.guest.write(vm.device("system"), size - free + 4 * MIB, MIB, seed="again")
        exact = rig.exact_backup()
        assert exact.report.consistency != "offline" and not exact.disk("system").compared
        assert digest(exact.image("system")) == vm.guest.hash(vm.device("system"))
