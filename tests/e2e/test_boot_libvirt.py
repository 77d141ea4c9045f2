"""As ``test_boot``, for domains of libvirt's."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from headstart.backup import cycle
from headstart.backup.complete import Options
from headstart.host.booter import Booter, Ending
from headstart.host.house import House
from headstart.host.slots import Slots
from headstart.host.tally import Tally
from headstart.host.vault import Vault
from headstart.hypervisor.libvirt import inventory
from headstart.load.bucket import Bucket
from headstart.repository import lease, snapshot
from headstart.restore.booting import domainboot
from headstart.restore.booting.attendance import Attendance
from headstart.restore.booting.boot import Wanted
from headstart.restore.booting.hold import Hold
from headstart.restore.booting.marks import Marks
from headstart.restore.rehearsing import rehearsal
from headstart.restore.rehearsing.rehearsal import Order
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.serving import Source
from headstart.state.series import Series
from headstart.state.values import Domain as Address
from headstart.state.values import Vm as Entry
from headstart.store.local import LocalStore
from tests.e2e.rig import digest
from tests.e2e.virt import VirtRig
from tests.kit import control, disks, libvirtd, stores
from tests.kit.domain import Domain, open_up
from tests.kit.libvirtd import Libvirtd
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 24 * MIB
BLOCK = 64 * 1024
BOOT_SECONDS = 90.0
#: Tests end domains with this beginning.
BOOTED = f"{libvirtd.PREFIX}booted"
PORT = "org.headstart.test.0"


@dataclass(frozen=True, slots=True)
class Backup:
    """A snapshot of a domain that is off by now."""

    rig: VirtRig
    uri: str
    snapshot: str
    hashes: dict[str, str]


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backup]:
    folder = tmp_path_factory.mktemp("boot")
    pair = (
        disks.Disk(disks.make_filled(folder / "system.qcow2", SIZE, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data", SIZE + 5 * 512, "qcow2", seed=2), "qcow2", "data", "virtio-scsi"),
    )
    card = "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>"
    with Libvirtd() as daemon, Domain(daemon, "boot", pair, extra=card) as vm:
        rig = VirtRig(folder / "rig", vm)
        made = rig.backup(Options(audit=0))
        hashes = {disk.name: vm.guest.hash(vm.device(disk.name)) for disk in pair}
        vm.shut_off()
        yield Backup(rig, daemon.uri, made.snapshot, hashes)


@pytest.fixture(autouse=True)
def cleared(backup: Backup) -> Iterator[None]:
    yield
    with contextlib.closing(libvirt.open(backup.uri)) as connection, contextlib.suppress(libvirt.libvirtError):
        libvirtd.undefine(connection.lookupByName(BOOTED))


@contextlib.contextmanager
def guest_of(uri: str, name: str = BOOTED) -> Iterator[control.Control]:
    with contextlib.closing(libvirt.open(uri)) as connection:
        root = ElementTree.fromstring(connection.lookupByName(name).XMLDesc(0))
    with contextlib.closing(control.Control(Path(dict(inventory.channels(root))[PORT].path))) as found:
        found.wait_ready(BOOT_SECONDS)
        yield found


def names(uri: str) -> list[str]:
    with contextlib.closing(libvirt.open(uri)) as connection:
        return [each.name() for each in connection.listAllDomains()]


def test_it_is_rehearsed(backup: Backup) -> None:
    """Where it is at home, apart from everything; its agent answers there, and its console is heard."""
    shown = backup.rig.cli.run("rehearse", backup.snapshot, "--libvirt", backup.uri, "--check", "file:/bin/sh").json
    assert shown["passed"] and shown["awaited"] == "agent", shown
    assert not [name for name in names(backup.uri) if name.startswith("rehearsal")]
    with backup.rig.repo() as repo:
        manifest = snapshot.load(repo, backup.snapshot)
        order = Order(Awaited.PATTERN, "never said", seconds=3, libvirt=backup.uri)
        with lease.reading_snapshot(repo, "rehearse", manifest):
            source = Source(repo, str(backup.rig.folder / "repository"), manifest)
            told = rehearsal.rehearse(source, order, backup.rig.scratch, time.time)
    assert told.proof.reason == "The pattern did not come on the console within 3 s."


def test_it_runs_by_order_of_a_server(backup: Backup) -> None:
    """Where it is at home; the order tells how it is reached, and its end takes all of it away."""
    rig, bucket = backup.rig, Bucket()
    place, told, ending = rig.folder / "repository", list[Mapping[str, Any]](), Ending()
    with rig.journal() as journal, ThreadPoolExecutor(1) as threads:
        vault = Vault(lambda: LocalStore(place), lambda: stores.PASSWORD, bucket, address=str(place))
        shared = (rig.scratch, Slots(1), Slots(1), bucket, Tally(bucket))
        booter = Booter(House(journal, Series(journal), vault, *shared), lambda: True)
        running = threads.submit(booter.boot, backup.snapshot, 1.0, ending, told.append)
        try:
            wait_until(lambda: told or running.done())
            reach = told[-1]["reach"] if told else running.result()
            assert reach["libvirt"] == backup.uri
            with guest_of(backup.uri, reach["domain"]) as guest:
                for name, expected in backup.hashes.items():
                    assert guest.hash(guest.device(name)) == expected
                guest.write(guest.device("data"), 0, MIB, seed="scratch")
        finally:
            ending.ask("It was stopped by order.")
        assert running.result(60)["ended"] == "It was stopped by order."
    assert reach["domain"] not in names(backup.uri)
    assert not list(rig.scratch.glob("ordered/*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_command(backup: Backup, number: signal.Signals) -> None:
    process = backup.rig.cli.start("boot", backup.snapshot, "--libvirt", backup.uri, "--name", BOOTED)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        assert json.loads(line)["libvirt"]["domain"] == BOOTED
        with guest_of(backup.uri) as guest:
            for name, expected in backup.hashes.items():
                assert guest.hash(guest.device(name)) == expected
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -number)
        deadline = time.monotonic() + 30
        while BOOTED in names(backup.uri):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.communicate()


def test_written_moved_and_backed_up_incrementally(backup: Backup, tmp_path: Path) -> None:
    rig, home = backup.rig, tmp_path / "home"
    home.mkdir(mode=0o777)
    open_up(home / "file")
    images = {"vda": home / "vda.qcow2", "sda": home / "sda.qcow2"}
    with rig.repo() as repo:
        source = Source(repo, str(rig.folder / "repository"), snapshot.load(repo, backup.snapshot))
        wanted = Wanted(BOOTED, Path("/run/headstart/vm") / BOOTED, rig.scratch / "boot" / BOOTED, outlives=True)
        with (
            lease.reading_snapshot(repo, "boot", source.manifest),
            domainboot.booted(source, wanted, backup.uri) as vm,
        ):
            with rig.journal() as journal:
                marks = Marks.new(journal.installation, images)
            domainboot.begin(backup.uri, BOOTED, marks, rig.scratch)
            vm.instance.resume()
            with guest_of(backup.uri) as guest:
                _write_and_move(vm, guest, images)
            vm.instance.let_go()
            domainboot.settle(vm, backup.uri, source.manifest.disks, images)
            found, keepsakes = domainboot.described(backup.uri, BOOTED, list(images), marks.installation, rig.scratch)
            with rig.journal() as journal:
                journal.adopt(Entry(BOOTED, domain=Address(backup.uri, BOOTED)), marks.tracked(source.manifest, found))
                journal.keep(BOOTED, keepsakes)
    with guest_of_running(backup.uri) as guest:
        guest.write(guest.device("data"), 20 * MIB, BLOCK, seed="after")
        with rig.context() as context:
            made = cycle.backup(context, BOOTED, Options())
        assert made.base == backup.snapshot
        for disk in made.disks:
            assert not disk.compared and disk.changed_bytes < SIZE / 2, disk
        restored = rig.restore(made.snapshot)
        assert digest(restored["vda"]) == guest.hash(guest.device("system"))
        assert digest(restored["sda"]) == guest.hash(guest.device("data"))


@contextlib.contextmanager
def guest_of_running(uri: str) -> Iterator[control.Control]:
    """Its control program says nothing of itself any more."""
    with contextlib.closing(libvirt.open(uri)) as connection:
        root = ElementTree.fromstring(connection.lookupByName(BOOTED).XMLDesc(0))
    with contextlib.closing(control.Control(Path(dict(inventory.channels(root))[PORT].path))) as found:
        yield found


def _write_and_move(vm: Any, guest: control.Control, images: dict[str, Path]) -> None:
    system, data = guest.device("system"), guest.device("data")
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
        domainboot.move(vm.instance.domain, Hold(vm.instance), images, lambda *_: None, attendance.look)
        vm.served.close()
    finally:
        done.set()
        writer.join()


def test_moved_by_the_command_line(backup: Backup, tmp_path: Path) -> None:
    """The domain runs on, is defined, and its backups are incremental, also after a restart."""
    home = tmp_path / "home"
    home.mkdir(mode=0o777)
    open_up(home / "file")
    words = ("boot", backup.snapshot, "--libvirt", backup.uri, "--name", BOOTED, "--move-to", home)
    told = backup.rig.cli.run(*words).json
    assert told["added"] == BOOTED
    base = backup.snapshot
    for seed in ("first", "started again"):
        with guest_of(backup.uri) as guest:
            guest.write(guest.device("data"), 7 * MIB, BLOCK, seed=seed)
            made = backup.rig.cli.run("backup", BOOTED, "--audit", "all").json
            assert made["base"] == base
            assert [disk["reason"] for disk in made["disks"]] == ["", ""], made
            restored = backup.rig.restore(made["snapshot"])
            assert digest(restored["sda"]) == guest.hash(guest.device("data"))
            base = made["snapshot"]
        if seed == "first":
            with contextlib.closing(libvirt.open(backup.uri)) as connection:
                domain = connection.lookupByName(BOOTED)
                assert domain.isPersistent()
                domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
                domain.create()
    taken = backup.rig.cli.run(*words[:-1], tmp_path / "other", expect=2)
    assert "runs" in taken.error["error"]["message"] or "has a domain" in taken.error["error"]["message"]
