"""A VM is booted from its backup, written to, moved while it runs, and backed up again without being read whole."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.repository import lease, snapshot
from headstart.restore.booting import boot, moving, settling
from headstart.restore.booting.attendance import Attendance
from headstart.restore.booting.boot import Booted, Wanted
from headstart.restore.booting.hold import Hold
from headstart.restore.booting.marks import Marks
from headstart.restore.serving.serving import Source
from headstart.state.values import Vm as Entry
from tests.e2e.boots import guest_at, served_by, wait_gone
from tests.e2e.rig import NAME, Rig, digest
from tests.kit import control, disks
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 24 * MIB
BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Backup:
    """A snapshot of a VM that is off by now, and what its disks held."""

    rig: Rig
    vm: Vm
    snapshot: str
    hashes: dict[str, str]

    def source(self, repo: Any) -> Source:
        return Source(repo, str(self.rig.folder / "repository"), snapshot.load(repo, self.snapshot))

    def wanted(self, folder: Path, **changes: Any) -> Wanted:
        return Wanted(NAME, folder / "run", folder / "overlays", **changes)


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backup]:
    folder = tmp_path_factory.mktemp("boot")
    pair = (
        disks.Disk(disks.make_filled(folder / "system.qcow2", SIZE, "qcow2"), "qcow2", "system"),
        # QEMU names its node, and its size is no multiple of a block.
        disks.Disk(disks.make_filled(folder / "data", SIZE + 5 * 512), "raw", "data", "virtio-scsi", blockdev=False),
    )
    with Vm(pair, extra=("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net")) as vm:
        rig = Rig(folder / "rig", vm)
        made = rig.backup(Options(audit=0))
        hashes = {disk.name: vm.guest.hash(vm.device(disk.name)) for disk in pair}
        vm.quit()
        yield Backup(rig, vm, made.snapshot, hashes)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="hs-", dir="/tmp") as made:
        yield Path(made)


@contextlib.contextmanager
def booted(backup: Backup, wanted: Wanted) -> Iterator[Booted]:
    with backup.rig.repo() as repo:
        source = backup.source(repo)
        with lease.reading_snapshot(repo, "boot", source.manifest), boot.booted(source, wanted) as found:
            yield found


def test_written_moved_and_backed_up_incrementally(backup: Backup, folder: Path) -> None:
    """What is written before, while and after it is moved is in the next backup, and hardly anything else is read."""
    rig = backup.rig
    images = {f"dev-{name}": folder / f"{name}.qcow2" for name in backup.hashes}
    with booted(backup, backup.wanted(folder)) as vm:
        found = moving.attachments(vm.instance.qmp)
        with rig.journal() as journal:
            marks = Marks.new(journal.installation, images)
        marks.begin(vm.instance.qmp, {disk: found[disk].tracked for disk in images})
        vm.instance.resume()
        with guest_at(vm.derived.sockets["char-control"]) as guest:
            system, data = guest.device("system"), guest.device("data")
            assert {"system": guest.hash(system), "data": guest.hash(data)} == backup.hashes
            guest.write(system, 0, BLOCK, seed="before")
            done = threading.Event()

            def churn() -> None:
                number = 0
                while not done.is_set():
                    guest.write(data, (number % 64) * BLOCK, BLOCK // 2, seed=f"while {number}")
                    guest.write(system, (64 + number % 64) * BLOCK, 4096, seed=f"while {number}")
                    number += 1

            writer = threading.Thread(target=churn)
            writer.start()
            try:
                attendance = Attendance(vm.instance, vm.served)
                moving.move(vm.instance.qmp, Hold(vm.instance), images, marks, lambda *_: None, attendance.look)
                vm.served.close()
            finally:
                done.set()
                writer.join()
            guest.write(data, 20 * MIB, BLOCK, seed="after")
            inventory = [each.disk for each in moving.attachments(vm.instance.qmp).values()]
            with rig.journal() as journal, rig.repo() as repo:
                manifest = snapshot.load(repo, backup.snapshot)
                journal.adopt(settling.entry(NAME, vm.derived), marks.tracked(manifest, inventory))
            made = rig.backup()
            assert made.base == backup.snapshot
            for disk in made.disks:
                assert not disk.compared, disk
                assert disk.changed_bytes < SIZE / 2, disk
            restored = rig.restore(made.snapshot)
            assert digest(restored["dev-system"]) == guest.hash(system)
            assert digest(restored["dev-data"]) == guest.hash(data)


@contextlib.contextmanager
def running(backup: Backup, *options: str | Path) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """``headstart boot``, and what it tells as soon as the VM runs."""
    process = backup.rig.cli.start("boot", backup.snapshot, *options)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_command(backup: Backup, number: signal.Signals) -> None:
    """Also with one that is killed. What was written is gone; nothing of ours is left running."""
    with running(backup, "--name", "booted") as (process, told):
        with guest_at(Path(told["sockets"]["char-control"])) as guest:
            system = guest.device("system")
            assert guest.hash(system) == backup.hashes["system"]
            guest.write(system, 0, BLOCK, seed="lost")
            assert guest.run("cat /sys/class/net/*/carrier", check=False).output.strip() != "1"
        servers = served_by(told)
        assert len(servers) == 1
        with running_refused(backup, "--name", "booted") as refused:
            assert refused["kind"] == "Locked" and "'booted'" in refused["message"]
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -number)
        for pid in (told["pid"], *servers):
            wait_gone(pid)
    left = list((backup.rig.scratch / "boot" / "booted").glob("*"))
    left += [path for path in Path(told["monitor"]).parent.iterdir() if path.name != "lock"]
    assert bool(left) == (number == signal.SIGKILL)


def test_it_ends_with_what_serves_its_disks(backup: Backup) -> None:
    with running(backup, "--name", "unserved") as (process, told):
        os.kill(served_by(told)[0], signal.SIGKILL)
        assert process.wait(60) == 20
        assert process.stderr is not None and "nbdkit ended by itself" in process.stderr.read()
        wait_gone(told["pid"])


@contextlib.contextmanager
def running_refused(backup: Backup, *options: str | Path) -> Iterator[Any]:
    yield backup.rig.cli.run("boot", backup.snapshot, *options, expect=None).error["error"]


def test_what_it_writes_is_kept_where_the_user_wants_it(backup: Backup, tmp_path: Path) -> None:
    overlay, written = tmp_path / "overlay", ""
    for number in range(2):
        with running(backup, "--name", "kept", "--overlay", overlay) as (process, told):
            with guest_at(Path(told["sockets"]["char-control"])) as guest:
                data = guest.device("data")
                if number:
                    assert any("goes on" in note for note in told["notes"])
                    assert guest.hash(data) == written
                guest.write(data, 5 * MIB, BLOCK, seed="kept")
                written = guest.hash(data)
                assert written != backup.hashes["data"]
                with contextlib.suppress(control.NoAnswer):
                    guest.run("poweroff -f", timeout=10)
            assert process.wait(60) == 0
            wait_gone(told["pid"])
    other = backup.rig.cli.run("boot", backup.snapshot, "--overlay", tmp_path, expect=24)
    assert "not empty" in other.error["error"]["message"]


def test_moved_by_the_command_line_and_started_again(backup: Backup, tmp_path: Path) -> None:
    """The VM runs on without us, is known here by its name, and its backups are incremental, also after a restart."""
    home = tmp_path / "home"
    told = backup.rig.cli.run("boot", backup.snapshot, "--name", NAME, "--move-to", home).json
    pids = [told["pid"]]
    try:
        assert told["added"] == NAME and not served_by(told)
        assert sorted(path.name for path in home.iterdir()) == ["dev-data.qcow2", "dev-system.qcow2", "start.sh"]
        assert not list((backup.rig.scratch / "boot").glob(f"{NAME}*"))
        base = backup.snapshot
        for seed in ("first", "started again"):
            with guest_at(Path(told["sockets"]["char-control"])) as guest:
                system, data = guest.device("system"), guest.device("data")
                guest.write(data, 7 * MIB, BLOCK, seed=seed)
                made = backup.rig.cli.run("backup", NAME, "--audit", "all").json
                assert made["base"] == base
                assert [disk["reason"] for disk in made["disks"]] == ["", ""], made
                assert sum(disk["changed_bytes"] for disk in made["disks"]) <= 2 * MIB
                restored = backup.rig.restore(made["snapshot"])
                assert digest(restored["dev-system"]) == guest.hash(system)
                assert digest(restored["dev-data"]) == guest.hash(data)
                base = made["snapshot"]
                with contextlib.suppress(control.NoAnswer):
                    guest.run("poweroff -f", timeout=10)
            wait_gone(pids[-1])
            if seed == "first":
                subprocess.run([told["start"]], check=True, timeout=60)
                pids.append(int(Path(told["monitor"]).with_name("pid").read_text()))
        refused = backup.rig.cli.run("boot", backup.snapshot, "--move-to", home, expect=24)
        assert "exists" in refused.error["error"]["message"]
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def refused(backup: Backup, status: int, *options: str | Path) -> str:
    """Nothing stays behind of what could not be started."""
    error = backup.rig.cli.run("boot", backup.snapshot, "--name", "refused", *options, expect=status).error["error"]
    assert not (backup.rig.scratch / "boot" / "refused").exists()
    assert not served_by({"monitor": "/run/headstart/vm/refused/qmp"})
    return str(error["message"])


@pytest.mark.parametrize(
    ("definition", "status", "words"),
    [
        ("qemu-system-x86_64 -machine nonsense {disks}", 20, "unsupported machine type"),
        ("qemu-system-nonsense -m 64 {disks}", 14, "qemu-system-nonsense cannot be started"),
        ("qemu-system-x86_64 -m 500T {disks}", 23, "--memory SIZE"),
        ("qemu-system-x86_64 -m 64", 15, "of the snapshot is not in the VM's definition"),
        ("qemu-system-x86_64 -device nonsense {disks}", 20, "'nonsense' is not a valid device model name"),
        ("<domain/>", 14, "boot it there with --libvirt URI"),
        ("\udcff", 2, "cannot be read"),
    ],
)
def test_a_definition_that_starts_nothing(
    backup: Backup, tmp_path: Path, definition: str, status: int, words: str
) -> None:
    disks_of_it = " ".join(
        f"-drive if=none,id={name},file=/x -device virtio-blk-pci,drive={name},id=dev-{name}" for name in backup.hashes
    )
    file = tmp_path / "definition"
    file.write_text(definition.format(disks=disks_of_it), errors="surrogateescape")
    assert words in refused(backup, status, "--definition", file)


def test_a_snapshot_without_a_definition(backup: Backup, folder: Path) -> None:
    with backup.rig.repo() as repo:
        source = backup.source(repo)
        bare = replace(source, manifest=replace(source.manifest, attachments=()))
        with pytest.raises(errors.NotFound, match="no definition"), boot.booted(bare, backup.wanted(folder)):
            pass
        gone = [replace(each, chunks=(b"\1" * 32,)) for each in source.manifest.attachments]
        damaged = replace(source, manifest=replace(source.manifest, attachments=tuple(gone)))
        with pytest.raises(errors.Damaged), boot.booted(damaged, backup.wanted(folder)):
            pass


def test_a_name_that_this_host_has_for_a_running_vm(backup: Backup, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as monitor, backup.rig.journal() as journal, tempfile.TemporaryDirectory() as at:
        monitor.bind(f"{at}/qmp")
        monitor.listen()
        journal.add_vm(Entry("alive", Path(at, "qmp")))
        made = backup.rig.cli.run("boot", backup.snapshot, "--name", "alive", "--move-to", tmp_path / "home", expect=2)
        assert "VM 'alive' runs" in made.error["error"]["message"] and not (tmp_path / "home").exists()


def test_a_store_that_is_away_for_a_while(backup: Backup, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The guest stands still, and notices nothing."""
    away = backup.rig.folder / "away"
    with booted(backup, backup.wanted(folder)) as vm:
        vm.instance.resume()
        attendance = Attendance(vm.instance, vm.served)
        with guest_at(vm.derived.sockets["char-control"]) as guest:
            system = guest.device("system")
            (backup.rig.folder / "repository").rename(away)
            try:
                found: list[str] = []
                reader = threading.Thread(target=lambda: found.append(guest.hash(system)))
                reader.start()
                deadline = time.monotonic() + 60
                while vm.instance.status != "io-error":
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                attendance.look()
                assert not found and "the guest stands still" in caplog.text
            finally:
                away.rename(backup.rig.folder / "repository")
            while reader.is_alive() and time.monotonic() < deadline + 60:
                attendance.look()
                time.sleep(0.1)
            assert found == [backup.hashes["system"]]
            attendance.look()
            assert "the guest goes on" in caplog.text


def test_a_move_that_is_interrupted_goes_on_later(backup: Backup, tmp_path: Path) -> None:
    """The VM ends, what it wrote is kept, and nothing is left in the directory. Done again, it goes on with that; no
    mark has recorded it, so the next backup compares."""
    home, folder = tmp_path / "home", Path("/run/headstart/vm/stopped")
    overlays = backup.rig.scratch / "boot" / "stopped.moving"
    words = ("boot", backup.snapshot, "--name", "stopped", "--move-to", home)
    # Where it cannot be read the move does not come to its end.
    blocks = sorted((backup.rig.folder / "repository" / "packs").rglob("*"))
    hidden = [path for path in blocks if path.is_file()]
    process = backup.rig.cli.start(*words)
    try:
        assert process.stderr is not None
        while "moving" not in process.stderr.readline():
            assert process.poll() is None
        for path in hidden:
            path.rename(path.with_suffix(".hidden"))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        for path in hidden:
            if not path.exists():
                path.with_suffix(".hidden").rename(path)
    for pid in served_by({"monitor": str(folder / "qmp")}):
        wait_gone(pid)
    image = overlays / "dev-data.qcow2"
    assert image.exists(), "it had moved before it was killed"
    wait_unused(image)
    refused = backup.rig.cli.run(*words, expect=24)
    assert "exists" in refused.error["error"]["message"]
    told = backup.rig.cli.run(*words[:-1], tmp_path / "other").json
    try:
        assert any("goes on" in note for note in told["notes"])
        made = backup.rig.cli.run("backup", "stopped", "--audit", "all").json
        assert made["base"] == backup.snapshot
        assert all("was not recorded" in disk["reason"] and disk["compared"] for disk in made["disks"])
    finally:
        os.kill(told["pid"], signal.SIGKILL)


def wait_unused(image: Path) -> None:
    """QEMU has let go of it."""
    deadline = time.monotonic() + 30
    while subprocess.run(["qemu-img", "info", image], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_moved_by_a_second_command(backup: Backup, tmp_path: Path) -> None:
    """The first one ends, and the VM runs on; its next backup has what was written since it was booted, and reads no
    more."""
    with running(backup, "--name", "later") as (process, told):
        try:
            with guest_at(Path(told["sockets"]["char-control"])) as guest:
                data = guest.device("data")
                guest.write(data, 0, BLOCK, seed="before")
                (tmp_path / "dev-data.qcow2").touch()
                words = ("boot", backup.snapshot, "--name", "later", "--move-to")
                assert "exists" in backup.rig.cli.run(*words, tmp_path, expect=24).error["error"]["message"]
                moved = backup.rig.cli.run(*words, tmp_path / "home").json
                assert moved["added"] == "later" and moved["pid"] == told["pid"]
                assert process.wait(30) == 0
                guest.write(data, 9 * MIB, BLOCK, seed="after")
                made = backup.rig.cli.run("backup", "later", "--audit", "all").json
                assert made["base"] == backup.snapshot
                assert [disk["changed_bytes"] for disk in made["disks"]] == [2 * BLOCK, 0]
                restored = backup.rig.restore(made["snapshot"])
                assert digest(restored["dev-data"]) == guest.hash(data)
                assert digest(restored["dev-system"]) == backup.hashes["system"]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(told["pid"], signal.SIGKILL)
