"""Overlays of ours where it does not matter who writes: a block device, rollbacks, booting from a snapshot."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.backup.report import DiskReport
from headstart.hypervisor.recording import OVERLAYS
from headstart.repository import lease, snapshot
from headstart.restore import rollback
from headstart.restore.booting import boot
from headstart.restore.booting.boot import Wanted
from headstart.restore.rollback import Order, Report
from headstart.restore.serving.serving import Source
from headstart.state.journal import Journal
from headstart.tracking.choice import Wish
from tests.e2e import bare
from tests.e2e.rig import NAME, Rig
from tests.kit import compare, disks, layers
from tests.kit.cli import Cli
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

PIECE = bare.PIECE
START = bare.START


@pytest.fixture
def head(tmp_path: Path) -> Path:
    raw = disks.make_filled(tmp_path / "two.raw", bare.SIZE, seed=2)
    with Journal.open(tmp_path / "rig" / "state") as journal:
        return layers.cover(raw, journal.installation)


@pytest.fixture
def vm(tmp_path: Path, head: Path) -> Iterator[Vm]:
    one = disks.Disk(disks.make_filled(tmp_path / "one.qcow2", bare.SIZE, "qcow2"), "qcow2", "one")
    with bare.started((one, disks.Disk(head, "qcow2", "two", "virtio-scsi"))) as machine:
        yield machine


@pytest.fixture
def rig(tmp_path: Path, vm: Vm) -> Rig:
    return Rig(tmp_path / "rig", vm, qga=False, track=Wish.OVERLAY)


def roll_back(rig: Rig, wanted: str) -> Report:
    with rig.context() as context:
        return rollback.rollback(context, NAME, snapshot.load(context.repository, wanted), Order(force=True))


def assert_holds(vm: Vm, head: Path, expected: dict[str, Path]) -> None:
    """Of a VM that is off."""
    layers.assert_sound(head)
    for disk in vm.disks:
        compare.assert_identical(expected[disk.device_id], disk.path.resolve(), "raw", "qcow2")


def keep(rig: Rig, made: str, folder: Path) -> dict[str, Path]:
    folder.mkdir()
    return {name: path.rename(folder / path.name) for name, path in rig.restore(made).items()}


def written(expected: bytearray, vm: Vm, number: int) -> None:
    place = START + number * PIECE
    bare.write(vm, "two", place, PIECE, number + 1)
    expected[place : place + PIECE] = bytes([number + 1]) * PIECE


def test_a_block_device(tmp_path: Path) -> None:
    """Over a kill of QEMU and of the tool, and a restart: exact, with its head start; nothing lies beside a device."""
    image = disks.make_filled(tmp_path / "image", bare.SIZE + 5 * disks.SECTOR)
    expected = bytearray(image.read_bytes())
    with layers.loop_device(image) as device:
        with Journal.open(tmp_path / "rig" / "state") as journal:
            (tmp_path / "rig" / "scratch").mkdir()
            head = layers.cover(device, journal.installation, tmp_path / "rig" / "scratch" / OVERLAYS)
        with bare.started([disks.Disk(head, "qcow2", "two", "virtio-scsi")]) as vm:
            rig = Rig(tmp_path / "rig", vm, qga=False, track=Wish.OVERLAY)
            rig.backup()
            written(expected, vm, 0)
            rig.precopy()
            written(expected, vm, 1)
            vm.kill()
            vm.start()
            made = exact(rig, expected)
            assert not made.compared and made.precopied_bytes >= PIECE
            written(expected, vm, 2)
            killed = ["--before", "headstart.hypervisor.qemu.jobs:wait:1"]
            assert Cli(rig.folder).start("backup", NAME, faults=killed).wait(60) == -signal.SIGKILL
            written(expected, vm, 3)
            vm.quit()
            vm.start()
            written(expected, vm, 4)
            assert not exact(rig, expected).compared
            assert not list(device.parent.glob("*.headstart*"))
            rig.precopy()
            assert len(layers.chain(head)) == 2
            written(expected, vm, 5)
            vm.quit()
            layers.assert_sound(head)
            compare.assert_identical(rig.restore(rig.backup().snapshot)["dev-two"], head.resolve(), "raw", "qcow2")


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("moment", "place"),
    [
        ("--before", "headstart.hypervisor.segmentfile:freeze:1"),
        ("--after", "headstart.hypervisor.segmentfile:freeze:1"),
        ("--before", "headstart.hypervisor.qemu.anchor:Anchor._block:1"),
    ],
)
def test_killed_around_what_keeps_others_from_writing(
    vm: Vm, rig: Rig, head: Path, moment: str, place: str, ended: bool
) -> None:
    """QEMU writes to an overlay that is closed to everybody else; started anew it opens the one above."""
    if "Anchor" not in place:
        rig.backup()
    bare.write_both(vm, 0)
    assert Cli(rig.folder).start("precopy", NAME, faults=[moment, place]).wait(60) == -signal.SIGKILL
    bare.write_both(vm, 1)
    if ended:
        vm.kill()
        vm.start()
    bare.write_both(vm, 2)
    found = rig.exact_backup().image("two").read_bytes()
    for number in range(3):
        assert found[START + number * PIECE : START + (number + 1) * PIECE] == bytes([number + 1]) * PIECE
    vm.quit()
    layers.assert_sound(head)
    assert not list(rig.scratch.glob("*.anchor"))


def test_an_image_that_is_edited_while_the_vm_is_off_is_compared(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    """As by virt-customize or a loop mount, with a head start; afterwards there is one again."""
    rig.backup()
    bare.write_both(vm, 0)
    rig.precopy()
    bare.write_both(vm, 1)
    vm.quit()
    place, edited = START + 20 * PIECE, b"edited" * 1000
    with (tmp_path / "two.raw").open("r+b") as file:
        file.seek(place)
        file.write(edited)
    vm.start()
    found = rig.exact_backup()
    assert found.image("two").read_bytes()[place : place + len(edited)] == edited
    assert found.disk("two").compared and not found.disk("one").compared
    assert any("somebody wrote to " in note for note in found.report.notes)
    rig.precopy()
    bare.restart(vm)
    bare.write_both(vm, 2)
    assert not rig.exact_backup().disk("two").compared


def exact(rig: Rig, expected: bytearray) -> DiskReport:
    found = rig.exact_backup()
    assert found.image("two").read_bytes() == expected
    assert found.disk("two").tracking == "overlay"
    return found.disk("two")


def test_back_and_forth(tmp_path: Path, vm: Vm, rig: Rig, head: Path) -> None:
    """With a chain of several overlays. It is started again from what is to be started from then."""
    first = rig.backup()
    expected = keep(rig, first.snapshot, tmp_path / "first")
    bare.write_both(vm, 0)
    rig.precopy()
    bare.write_both(vm, 1)
    report = roll_back(rig, first.snapshot)
    assert report.running and report.safety is not None
    assert [(disk.written_bytes, disk.compared) for disk in report.disks] == [(2 * PIECE, False)] * 2
    safe = keep(rig, report.safety, tmp_path / "safe")
    vm.adopt()
    exact = rig.exact_backup()
    assert exact.disk("two").tracking == "overlay"
    for name, path in exact.restored.items():
        compare.assert_identical(path, expected[name])
    bare.write_both(vm, 3)
    assert not rig.exact_backup().disk("two").compared
    roll_back(rig, report.safety)
    vm.adopt()
    vm.quit()
    assert_holds(vm, head, safe)


@pytest.mark.parametrize(
    "place",
    ["headstart.state.noted:Noted.begin_rollback:2", "headstart.wire.imagewriter:ImageWriter.finish:2"],
)
def test_killed_in_the_middle(tmp_path: Path, vm: Vm, rig: Rig, head: Path, place: str) -> None:
    first = rig.backup()
    expected = keep(rig, first.snapshot, tmp_path / "first")
    bare.write_both(vm, 0)
    rig.precopy()
    bare.write_both(vm, 1)
    words = ("rollback", NAME, first.snapshot, "--force", "--yes")
    process = Cli(rig.folder).start(*words, faults=["--before", place])
    said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    roll_back(rig, first.snapshot)
    with contextlib.suppress(OSError):
        vm.adopt()
        vm.quit()
    assert_holds(vm, head, expected)
    if not vm.running:
        vm.start()
    exact = rig.exact_backup()
    for name, path in exact.restored.items():
        compare.assert_identical(path, expected[name])


def test_its_snapshot_stands_before_its_first_instruction(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    """Its command line names an overlay that is gone by then."""
    bare.write_both(vm, 0)
    made = rig.backup().snapshot
    bare.write_both(vm, 1)
    rig.backup()
    with rig.repo() as repo:
        source = Source(repo, str(rig.folder / "repository"), snapshot.load(repo, made))
        wanted = Wanted(NAME, tmp_path / "run", tmp_path / "overlays")
        with lease.reading_snapshot(repo, "boot", source.manifest), boot.booted(source, wanted) as found:
            told = found.instance.qmp.execute("query-block")
            sizes = {each["qdev"]: each["inserted"]["image"]["virtual-size"] for each in told}
            assert list(sizes.values()) == [bare.SIZE] * 2 and all("dev-" in device for device in sizes), sizes
