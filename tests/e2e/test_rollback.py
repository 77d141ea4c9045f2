"""A VM is rolled back in place: every byte is what it was, what was there is kept, and the next backup is right."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from headstart import errors
from headstart.hypervisor.qemu import power
from headstart.repository import snapshot
from headstart.repository.manifest import Manifest
from headstart.restore import rollback
from headstart.restore.rollback import Order, Report
from headstart.units import KIB, MIB
from tests.e2e import bare
from tests.e2e.rig import NAME, Rig, digest, disk_of
from tests.e2e.virt import VirtRig
from tests.kit import compare, control, disks
from tests.kit.cli import Cli
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

START = bare.START
PIECE = bare.PIECE
#: The number of a piece that is zero at first.
EMPTY = 44
#: Nobody is in a bare VM who could shut it down.
FORCED = Order(force=True)


vm = bare.vm
rig = bare.rig


def roll_back(rig: Rig, wanted: str, order: Order = FORCED) -> Report:
    with rig.context() as context:
        return rollback.rollback(context, NAME, snapshot.load(context.repository, wanted), order)


def keep(rig: Rig, made: str, folder: Path) -> dict[str, Path]:
    """The disks of a snapshot, as a restore has them."""
    return {name: Path(shutil.copy(path, folder)) for name, path in rig.restore(made).items()}


def assert_is(vm: Vm, expected: dict[str, Path]) -> None:
    for disk in vm.disks:
        compare.assert_identical(expected[disk.device_id], disk.path, "raw", disk.format)


def test_back_and_forth(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    first = rig.backup()
    (tmp_path / "first").mkdir()
    expected = keep(rig, first.snapshot, tmp_path / "first")
    bare.write_both(vm, 0)
    rig.backup()
    bare.write_both(vm, 1)
    bare.write_both(vm, EMPTY)
    report = roll_back(rig, first.snapshot)
    assert [(disk.written_bytes, disk.compared) for disk in report.disks] == [(3 * PIECE, False)] * 2
    assert report.running and report.safety is not None
    # The VM is the same as it was started with, and its guest has not written.
    vm.adopt()
    assert vm.qmp("query-status")["status"] == "prelaunch"
    vm.quit()
    assert_is(vm, expected)
    vm.start()
    # What was put back is what changed since the safety snapshot: QEMU's bitmap of the qcow2 has recorded it.
    exact = rig.exact_backup()
    assert exact.report.base == report.safety
    assert not exact.disk("one").compared and exact.disk("one").changed_bytes == 3 * PIECE
    assert exact.disk("two").compared, "a raw image keeps no bitmaps"
    for name, path in exact.restored.items():
        compare.assert_identical(path, expected[name])
    # What was there is not lost.
    (tmp_path / "safe").mkdir()
    safe = keep(rig, report.safety, tmp_path / "safe")
    forth = roll_back(rig, report.safety)
    vm.adopt()
    vm.quit()
    assert_is(vm, safe)
    assert [disk.written_bytes for disk in forth.disks] == [3 * PIECE] * 2


def test_a_vm_that_does_not_start_again(vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is done, and told."""
    first = rig.backup()
    bare.write_both(vm, 0)

    def broken(*_: object) -> NoReturn:
        raise errors.Unreachable("QEMU cannot be started again: No such file or directory. Start it as you do.")

    monkeypatch.setattr(power, "_spawn", broken)
    report = roll_back(rig, first.snapshot)
    assert report.not_started.startswith("QEMU cannot be started again")
    assert not report.running and not vm.running and report.disks[0].written_bytes == PIECE
    assert roll_back(rig, first.snapshot).not_started == "", "it was off before"


def test_a_vm_that_is_off_stays_off(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    first = rig.backup()
    (tmp_path / "first").mkdir()
    expected = keep(rig, first.snapshot, tmp_path / "first")
    bare.write_both(vm, EMPTY)
    vm.quit()
    report = roll_back(rig, first.snapshot, Order(safety=False))
    assert report.safety is None and not report.running and all(disk.compared for disk in report.disks)
    assert [disk.written_bytes for disk in report.disks] == [PIECE] * 2
    assert_is(vm, expected)
    assert rig.snapshots() == [first.snapshot]
    vm.start()
    bare.write_both(vm, 3)
    exact = rig.exact_backup()
    assert not exact.disk("one").compared and exact.disk("one").changed_bytes == 2 * PIECE


@pytest.mark.parametrize(
    "place",
    [
        "headstart.state.noted:Noted.begin_rollback:2",
        "headstart.wire.nbd:Client.write:4",
        "headstart.wire.imagewriter:ImageWriter.finish:2",
    ],
)
def test_killed_in_the_middle(tmp_path: Path, vm: Vm, place: str) -> None:
    cli = Cli(tmp_path / "cli")
    cli.run("init")
    cli.run("vm", "add", "web", "--qmp", vm.qmp_socket)
    first = cli.run("backup", "web").json["snapshot"]
    cli.run("restore", first, tmp_path / "first", "--format", "raw")
    expected = {disk.device_id: tmp_path / "first" / f"{disk.device_id}.raw" for disk in vm.disks}
    for number in (*range(0, 12, 3), EMPTY):
        bare.write_both(vm, number)
    words = ("rollback", "web", first, "--yes", "--force")
    cli.run(*words, kill_before=place)
    assert not vm.running
    status = cli.run("status", "web").json["vms"][0]["half_rolled_back"]
    begun = "begin_rollback" not in place
    assert status == (first if begun else None)
    snapshots = len(cli.run("snapshots").json["snapshots"])
    if begun:
        for verb in ("backup", "precopy"):
            refused = cli.run(verb, "web", expect=21).error["error"]["message"]
            assert f"half rolled back to snapshot {first}" in refused and f"headstart rollback web {first}" in refused
        assert len(cli.run("snapshots").json["snapshots"]) == snapshots
    done = cli.run(*words).json
    assert all(disk["compared"] is begun for disk in done["disks"])
    assert done["running"], "the one that was killed told that it ran"
    vm.adopt()
    vm.quit()
    assert_is(vm, expected)
    # The snapshot of what was there has it all.
    assert done["safety"] in {each["id"] for each in cli.run("snapshots").json["snapshots"]}
    made = cli.run("backup", "web").json["snapshot"]
    cli.run("restore", made, tmp_path / "again", "--format", "raw")
    for disk in vm.disks:
        compare.assert_identical(tmp_path / "again" / f"{disk.device_id}.raw", expected[disk.device_id])


def test_a_failure_in_the_middle_is_told(vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rig.backup()
    bare.write_both(vm, 0)

    def fail(*_: object) -> None:
        raise errors.StoreFailed("The network is gone.")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.restore.inplace.write", fail)
        with pytest.raises(errors.StoreFailed) as failed:
            roll_back(rig, first.snapshot)
    safety = rig.snapshots()[-1]
    assert failed.value.__notes__ == [
        f"VM '{NAME}' is half rolled back and stays off: give the same command again, or"
        f" 'headstart rollback {NAME} {safety}' to go back."
    ]
    # And that is what it comes to.
    assert roll_back(rig, safety).running
    vm.adopt()
    exact = rig.exact_backup()
    for name, path in rig.restore(safety).items():
        assert digest(path) == digest(exact.restored[name]) if path.exists() else True


def test_a_failure_before_it_begins_leaves_the_vm_running(vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rig.backup()
    bare.write_both(vm, 0)

    def fail(*_: object) -> None:
        raise errors.StoreFailed("The network is gone.")

    with monkeypatch.context() as patch:
        patch.setattr("headstart.backup.publish.run", fail)
        with pytest.raises(errors.StoreFailed) as failed:
            roll_back(rig, first.snapshot)
    assert failed.value.__notes__ == ["Nothing was changed, and the VM was started again."]
    vm.adopt()
    assert disk_of(rig.backup(), "one").changed_bytes == PIECE


@contextlib.contextmanager
def untouched(vm: Vm) -> Iterator[None]:
    before = [disk.path.stat().st_mtime_ns for disk in vm.disks]
    running = vm.running
    yield
    assert vm.running is running and [disk.path.stat().st_mtime_ns for disk in vm.disks] == before


def test_what_cannot_be_is_refused_before_anything_is_touched(tmp_path: Path, vm: Vm, rig: Rig) -> None:
    first = rig.backup()
    with rig.repo() as repo:
        manifest = snapshot.load(repo, first.snapshot)
    cases: list[tuple[Manifest, type[errors.HeadstartError], str]] = [
        (_with(manifest, vm="other"), errors.Usage, "is of other, and not of guest"),
        (_with(manifest, name="dev-three"), errors.NotFound, "has no disk dev-three any longer"),
        (_with(manifest, size=bare.SIZE // 2), errors.TargetRefused, "bytes now, and"),
    ]
    for wanted, kind, message in cases:
        with untouched(vm), rig.context() as context, pytest.raises(kind, match=message):
            rollback.rollback(context, NAME, wanted, FORCED)
    with untouched(vm), pytest.raises(errors.Busy, match=r"did not shut down.*Nothing was changed.*--force"):
        roll_back(rig, first.snapshot, Order(seconds=0.2))
    vm.quit()
    with subprocess.Popen(["qemu-io", "-f", "qcow2", vm.disks[0].path], stdin=subprocess.PIPE, stdout=-1) as holder:
        assert holder.stdout and holder.stdin
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        with untouched(vm), pytest.raises(errors.Unreachable, match="open for writing"):
            roll_back(rig, first.snapshot)
        holder.stdin.close()
    vm.disks[1].path.rename(tmp_path / "moved")
    with pytest.raises(errors.Unreachable, match="is not there"):
        roll_back(rig, first.snapshot)


def _with(manifest: Manifest, vm: str | None = None, name: str | None = None, size: int | None = None) -> Manifest:
    from dataclasses import replace

    disk = manifest.disks[0]
    changed = replace(disk, name=name or disk.name, size=size or disk.size)
    return replace(manifest, vm=vm or manifest.vm, disks=(changed, *manifest.disks[1:]))


def test_a_guest_that_shuts_down(tmp_path: Path) -> None:
    size, free = 64 * MIB, 16 * MIB
    with Vm(disks.two_disks(tmp_path, size, free)) as vm:
        rig = Rig(tmp_path / "rig", vm)
        vm.guest.write(vm.device("system"), size - free, MIB, seed="wanted")
        content = {name: vm.guest.hash(vm.device(name)) for name in ("system", "data")}
        first = rig.backup()
        vm.guest.write(vm.device("system"), size - free, 2 * MIB, seed="unwanted")
        vm.guest.write(vm.device("data"), 0, MIB, seed="unwanted")
        now = {name: vm.guest.hash(vm.device(name)) for name in ("system", "data")}

        def obey() -> None:
            """Nobody in this guest minds the power button."""
            vm.wait_event("POWERDOWN")
            with contextlib.suppress(control.NoAnswer):
                vm.guest.run("umount -a -r; sync; poweroff -f", timeout=10)

        guest = threading.Thread(target=obey)
        guest.start()
        report = roll_back(rig, first.snapshot, Order())
        guest.join()
        vm.adopt()
        vm.boot_id = ""
        vm.wait_ready()
        assert {name: vm.guest.hash(vm.device(name)) for name in content} == content
        assert report.safety is not None
        safe = rig.restore(report.safety)
        assert {name: digest(safe[f"dev-{name}"]) for name in now} == now
        vm.guest.write(vm.device("system"), size - free + 4 * MIB, MIB, seed="again")
        exact = rig.exact_backup()
        assert not exact.disk("system").compared and exact.disk("system").changed_bytes >= 3 * MIB
        assert digest(exact.image("system")) == vm.guest.hash(vm.device("system"))


@pytest.fixture
def daemon() -> Iterator[Libvirtd]:
    with Libvirtd() as running:
        yield running


def test_a_domain(daemon: Libvirtd, tmp_path: Path) -> None:
    data = disks.Disk(disks.make_filled(tmp_path / "data.qcow2", 24 * MIB, "qcow2"), "qcow2", "data")
    with Domain(daemon, "rollback", [data]) as vm:
        rig = VirtRig(tmp_path / "rig", vm)
        content = vm.guest.hash(vm.device("data"))
        first = rig.backup()
        vm.guest.write(vm.device("data"), 4 * MIB, MIB, seed="unwanted")
        report = roll_back(rig, first.snapshot, Order(seconds=0.5, force=True))
        assert report.running and report.disks[0].written_bytes == MIB
        vm.boot_id = ""
        vm.follow()
        assert vm.guest.hash(vm.device("data")) == content
        exact = rig.backup()
        assert exact.base == report.safety
        assert not exact.disks[0].compared and exact.disks[0].changed_bytes == MIB
        restored = rig.restore(exact.snapshot)
        assert digest(restored["vda"]) == content


def test_an_overlay_and_uefi_variables(tmp_path: Path) -> None:
    """What the overlay stands on is only read."""
    backing = disks.make_filled(tmp_path / "backing.raw", bare.SIZE // 2)
    overlay = tmp_path / "one.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "backing.raw"]
    subprocess.run([*command, str(overlay), str(bare.SIZE)], check=True)
    flash = []
    for unit, name in enumerate(("code", "variables")):
        (tmp_path / name).write_bytes(name.encode().ljust(256 * KIB, b"\xff"))
        only = ",readonly=on" if name == "code" else ""
        flash += ["-drive", f"if=pflash,unit={unit},format=raw,file={tmp_path / name}{only}"]
    before = backing.read_bytes()
    with bare.started([disks.Disk(overlay, "qcow2", "one")], *flash) as vm:
        rig = Rig(tmp_path / "rig", vm, qga=False)
        bare.write(vm, "one", START, MIB, 1)
        first = rig.backup()
        expected = keep(rig, first.snapshot, tmp_path)
        bare.write(vm, "one", START + MIB, 2 * MIB, 2)
        bare.write(vm, "one", 12 * MIB, MIB, 3)
        vm.quit()
        (tmp_path / "variables").write_bytes(b"another".ljust(256 * KIB, b"\xff"))
        report = roll_back(rig, first.snapshot)
        assert report.disks[0].written_bytes == 3 * MIB and not report.running
        assert_is(vm, expected)
        assert backing.read_bytes() == before
        assert (tmp_path / "variables").read_bytes().startswith(b"variables\xff")
        vm.start()
        exact = rig.exact_backup()
        assert not exact.disk("one").compared and exact.disk("one").changed_bytes == 3 * MIB


@pytest.mark.parametrize("started", [False, True])
def test_somebody_who_comes_in_between(vm: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch, started: bool) -> None:
    """After the safety snapshot an image is written, or the VM is started: nothing is changed."""
    first = rig.backup()
    bare.write_both(vm, 0)
    vm.quit()
    right = rollback._Run._between
    content: list[bytes] = []

    def come(*given: Any) -> Any:
        if not content:
            if started:
                vm.start()
            else:
                write = f"write -P 9 {START + 5 * PIECE} {PIECE}"
                subprocess.run(["qemu-io", "-f", "raw", "-c", write, vm.disks[1].path], check=True, capture_output=True)
            content.append(vm.disks[1].path.read_bytes())
        return right(*given)

    monkeypatch.setattr(rollback._Run, "_between", come)
    with pytest.raises(errors.Busy, match=r"wrote to the image.*Nothing was changed"):
        roll_back(rig, first.snapshot)
    assert vm.disks[1].path.read_bytes() == content[0] and vm.running is started
    assert roll_back(rig, first.snapshot).running is started
    if started:
        vm.adopt()
