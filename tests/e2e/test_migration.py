"""A VM moves to another QEMU in the middle of everything: it always arrives, and the next backup is exact."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headstart.backup.status import status_of
from headstart.hypervisor.contract import Migrating
from tests.e2e.rig import NAME, Exact, Rig, digest
from tests.kit import disks, travel
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 24 * MIB
SLOW = 64 << 10
#: So slow that a busy host's threads have their turn before the memory is sent.
STEADY = 64 << 20


class Home:
    """Where the VM is now."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self._writes = 0

    def write(self, start: int) -> None:
        """A MiB of new content on both disks, at so many MiB."""
        self._writes += 1
        for name in ("system", "data"):
            self.vm.guest.write(self.vm.device(name), start * MIB, MIB, seed=self._writes)

    def depart(self, target: Vm, *, bitmaps: bool, bandwidth: int = STEADY, capabilities: tuple[str, ...] = ()) -> None:
        socket = target.qmp_socket.with_name("migration")
        travel.begin(self.vm, target, socket, bitmaps=bitmaps, bandwidth=bandwidth, capabilities=capabilities)

    def move_over(self, target: Vm, *, bitmaps: bool) -> None:
        self.depart(target, bitmaps=bitmaps)
        assert travel.wait(self.vm, *travel.OVER) == "completed", self.vm.log

    def arrive(self, target: Vm, rig: Rig) -> None:
        """The owner ends the old QEMU, and the path leads to the new one."""
        assert travel.wait(self.vm, *travel.OVER) == "completed", self.vm.log
        target.wait_event("RESUME")
        self.vm.close()
        self.vm = target
        rig.follow(target)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("disks")
    pair = (
        disks.Disk(disks.make_filled(folder / "system.qcow2", SIZE, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data.raw", SIZE, seed=2), "raw", "data", interface="virtio-scsi"),
    )
    with contextlib.ExitStack() as stack:
        vm = stack.enter_context(Vm(pair))
        found = Home(vm)
        stack.callback(lambda: found.vm.close())
        yield found


@pytest.fixture
def rig(tmp_path: Path, home: Home) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", home.vm)
    yield made
    made.release()


def draft(home: Home, rig: Rig) -> None:
    """A backup, a head start of two MiB on each disk, and a MiB besides."""
    rig.backup()
    home.write(4)
    rig.precopy()
    home.write(8)
    rig.precopy()
    home.write(12)


def exact_backup(home: Home, rig: Rig) -> Exact:
    """The restored disks are what the guest reads, byte for byte."""
    exact = rig.exact_backup()
    for name in ("system", "data"):
        assert digest(exact.image(name)) == home.vm.guest.hash(home.vm.device(name)), name
    return exact


def assert_head_start(exact: Exact, name: str) -> None:
    disk = exact.disk(name)
    assert disk.precopied_bytes >= 2 * MIB and not disk.compared, disk


def assert_let_go(rig: Rig) -> None:
    """Of ours nothing but bitmaps is left in the old QEMU."""
    assert not [found for found in rig.leftovers() if not found.startswith("bitmaps")]


def standing(rig: Rig) -> Any:
    """All that must not change while the VM is on its way."""
    with rig.journal() as journal:
        known = journal.tracked(NAME), journal.draft(NAME), status_of(journal, NAME, 65536).copied_bytes
    return known, rig.bitmaps(), rig.leftovers()


@pytest.mark.parametrize("bitmaps", [True, False], ids=["dirty-bitmaps", "plain"])
def test_in_the_middle_of_a_draft(home: Home, rig: Rig, bitmaps: bool) -> None:
    """With the capability all bitmaps come along. Without it those of qcow2 images do, as they are in the images."""
    draft(home, rig)
    target = travel.waiting(home.vm)
    home.depart(target, bitmaps=bitmaps, bandwidth=SLOW)
    travel.wait(home.vm, "active")
    before = standing(rig)
    refuses(rig, "The VM is being migrated")
    rig.follow(target)
    refuses(rig, "waits for a VM")
    rig.follow(home.vm)
    assert standing(rig) == before
    home.vm.qmp("migrate-set-parameters", max_bandwidth=travel.FAST)
    assert travel.wait(home.vm, *travel.OVER) == "completed"
    refuses(rig, "migrated away from this QEMU")
    home.arrive(target, rig)
    home.write(16)
    exact = exact_backup(home, rig)
    assert_head_start(exact, "system")
    if bitmaps:
        assert_head_start(exact, "data")
    else:
        assert exact.disk("data").compared and "migrated without its bitmaps" in exact.disk("data").reason
    home.write(1)
    again = exact_backup(home, rig)
    assert not any(disk.compared for disk in again.report.disks)


def refuses(rig: Rig, words: str) -> None:
    for verb in (rig.precopy, rig.backup, rig.release):
        with pytest.raises(Migrating, match=words):
            verb()


def test_while_the_point_stands(home: Home, rig: Rig) -> None:
    """The backup gives way at once, and is made on the other side."""
    draft(home, rig)
    target = travel.waiting(home.vm)

    def migrate(_: Mapping[str, str]) -> None:
        home.move_over(target, bitmaps=True)

    with pytest.raises(Migrating):
        rig.backup(after_thaw=migrate)
    assert_let_go(rig)
    home.arrive(target, rig)
    home.write(16)
    exact = exact_backup(home, rig)
    assert_head_start(exact, "system")
    assert_head_start(exact, "data")


@pytest.mark.parametrize("bitmaps", [True, False], ids=["dirty-bitmaps", "plain"])
def test_while_a_round_reads(home: Home, rig: Rig, bitmaps: bool) -> None:
    rig.backup()
    for start in range(2, 18):
        home.write(start)
    target = travel.waiting(home.vm)
    moved: list[int] = []

    def migrate(_what: str, done: int, _total: int) -> None:
        # A slow reader, but one that goes on reading: QEMU waits for what was asked for before it switches over.
        time.sleep(0.1)
        if done > MIB and not moved:
            moved.append(done)
            home.depart(target, bitmaps=bitmaps)

    # Without the capability the bitmaps by which what was read is believed may have left already.
    with contextlib.nullcontext() if bitmaps else contextlib.suppress(Migrating):
        done = rig.precopy(migrate)
        assert "migrat" in done.halted and done.copied_bytes, done
    assert_let_go(rig)
    home.arrive(target, rig)
    home.write(3)
    exact = exact_backup(home, rig)
    assert not exact.disk("system").compared
    assert exact.disk("data").compared is not bitmaps
    if bitmaps:
        assert exact.disk("system").precopied_bytes + exact.disk("data").precopied_bytes


@pytest.mark.parametrize("how", ["cancelled", "failed"])
@pytest.mark.parametrize("bitmaps", [True, False], ids=["dirty-bitmaps", "plain"])
def test_it_comes_to_nothing(home: Home, rig: Rig, how: str, bitmaps: bool) -> None:
    """At the last moment. The VM goes on here with all of its bitmaps."""
    draft(home, rig)
    with contextlib.closing(travel.waiting(home.vm)) as target:
        home.depart(target, bitmaps=bitmaps, capabilities=("pause-before-switchover",))
        travel.wait(home.vm, "pre-switchover")
        refuses(rig, "migrated")
        if how == "cancelled":
            home.vm.qmp("migrate_cancel")
        else:
            target.kill()
            home.vm.qmp("migrate-continue", state="pre-switchover")
        travel.wait(home.vm, "cancelled", "failed")
    if not home.vm.qmp("query-status")["running"]:
        home.vm.qmp("cont")
    home.vm.qmp("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": False}])
    home.write(16)
    exact = exact_backup(home, rig)
    assert_head_start(exact, "system")
    assert_head_start(exact, "data")
