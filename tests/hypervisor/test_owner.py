"""What owners do to VMs and images, in memory as with QEMU: the simulations rest on the two being alike."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from headstart import errors, units
from headstart.hypervisor.contract import Bitmap, Machine, PointRequest, Remove, Start, Stop
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.hypervisor.memory.image import Image
from tests.hypervisor.qemu import bare
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import travel

BLOCKS = 32


class Owned(Protocol):
    """A VM with the disks ``kept`` (qcow2) and ``lost`` (raw), each of ``BLOCKS`` blocks; it runs."""

    def connect(self) -> Machine: ...

    def write(self, disk: str, block: int) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def start(self, *, temporary: bool = False) -> None: ...

    def migrate(self, *, carried: bool) -> bool:
        """To another process, with or without the capability ``dirty-bitmaps``. Whether it arrived."""
        ...

    def overlay(self) -> None:
        """An external snapshot of ``kept``, while it runs."""
        ...

    def commit(self) -> None: ...

    def resize(self, count: int) -> None:
        """``kept`` gets another size, while it runs."""
        ...

    def save(self) -> None:
        """Copy the image of ``kept``, as it is."""
        ...

    def put_back(self) -> None: ...


class MemoryOwned:
    def __init__(self) -> None:
        self.vm = MemoryVm({"kept": 512 * BLOCKS, "lost": 512 * BLOCKS}, 512, raw=("lost",))
        self._saved: list[Image] = []

    def connect(self) -> Machine:
        return MemoryMachine(self.vm, INSTALLATION, 512)

    def write(self, disk: str, block: int) -> None:
        self.vm.write(disk, block)

    def stop(self) -> None:
        self.vm.stop()

    def kill(self) -> None:
        self.vm.kill()

    def start(self, *, temporary: bool = False) -> None:
        self.vm.start(temporary=temporary)

    def migrate(self, *, carried: bool) -> bool:
        return self.vm.migrate(carried=carried)

    def overlay(self) -> None:
        self.vm.overlay("kept")

    def commit(self) -> None:
        self.vm.commit("kept")

    def resize(self, count: int) -> None:
        self.vm.resize("kept", 512 * count)

    def save(self) -> None:
        self._saved = self.vm.copy("kept")

    def put_back(self) -> None:
        self.vm.rollback("kept", self._saved)


class QemuOwned:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        size = str(BLOCKS * units.BLOCK_SIZE)
        self._kept = bare.image(folder / "kept.qcow2", size)
        self._top = self._kept
        self._lost = bare.image(folder / "lost.raw", size, "raw")
        self.start()

    def start(self, *, temporary: bool = False) -> None:
        self.vm = self._process(*(["-snapshot"] if temporary else []))

    def _process(self, *options: str) -> bare.Bare:
        drives = [
            *("-drive", f"if=none,id=a,file={self._top}", "-device", "virtio-blk-pci,drive=a,id=kept"),
            *("-drive", f"if=none,id=b,file={self._lost},format=raw", "-device", "virtio-blk-pci,drive=b,id=lost"),
        ]
        return bare.Bare(Path(tempfile.mkdtemp(dir=self._folder)), [*options, *drives])

    def migrate(self, *, carried: bool) -> bool:
        other = self._process("-incoming", "defer")
        arrived = travel.send(self.vm, other, other.folder / "migration", bitmaps=carried) == "completed"
        gone, self.vm = (self.vm, other) if arrived else (other, self.vm)
        gone.close()
        return arrived

    def connect(self) -> Machine:
        return self.vm.machine()

    def write(self, disk: str, block: int) -> None:
        self.vm.write(disk, block * units.BLOCK_SIZE, 512, 1)

    def stop(self) -> None:
        self.vm.process.send_signal(signal.SIGTERM)
        self.vm.process.wait(20)

    def kill(self) -> None:
        self.vm.process.kill()
        self.vm.process.wait()

    def overlay(self) -> None:
        self._top = self._folder / "overlay.qcow2"
        self.vm.qmp("blockdev-snapshot-sync", device="a", snapshot_file=str(self._top), format="qcow2")

    def commit(self) -> None:
        self.vm.qmp("block-commit", device="a", job_id="commit")
        self.vm.wait_event("BLOCK_JOB_READY")
        self.vm.qmp("job-complete", id="commit")
        self.vm.wait_event("BLOCK_JOB_COMPLETED")
        self._top = self._kept

    def resize(self, count: int) -> None:
        self.vm.qmp("block_resize", device="a", size=count * units.BLOCK_SIZE)

    def save(self) -> None:
        shutil.copyfile(self._kept, self._folder / "saved")

    def put_back(self) -> None:
        shutil.copyfile(self._folder / "saved", self._kept)


@pytest.fixture(params=["memory", pytest.param("qemu", marks=pytest.mark.vm)])
def owned(request: pytest.FixtureRequest) -> Iterator[Owned]:
    if request.param == "memory":
        yield MemoryOwned()
        return
    # The path of a unix socket has at most 107 bytes: pytest's folders are too deep.
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        qemu = QemuOwned(Path(folder))
        try:
            yield qemu
        finally:
            qemu.vm.close()


@contextlib.contextmanager
def connected(owned: Owned) -> Iterator[Machine]:
    machine = owned.connect()
    try:
        yield machine
    finally:
        machine.close()


def begin(owned: Owned, *names: str) -> None:
    with connected(owned) as machine:
        machine.transact([Start(disk, name) for disk in ("kept", "lost") for name in names])


def found(owned: Owned, disk: str = "kept") -> list[Bitmap]:
    with connected(owned) as machine:
        return sorted(machine.bitmaps()[disk], key=lambda bitmap: bitmap.name)


def changed(owned: Owned, name: str, disk: str = "kept") -> set[int]:
    with connected(owned) as machine:
        return set(machine.changed({disk: [name]})[disk])


def test_a_clean_end_keeps_what_can_be_kept(owned: Owned) -> None:
    begin(owned, "a", "b")
    owned.write("kept", 3)
    owned.write("lost", 3)
    with connected(owned) as machine:
        machine.transact([Stop("kept", "b")])
    owned.stop()
    owned.start()
    owned.write("kept", 5)
    assert found(owned) == [Bitmap("a", True, True, True), Bitmap("b", False, True, True)]
    assert (changed(owned, "a"), changed(owned, "b")) == ({3, 5}, {3})
    assert found(owned, "lost") == []


def test_a_kill_breaks_what_was_stored_and_loses_the_rest(owned: Owned) -> None:
    begin(owned, "stored")
    owned.stop()
    owned.start()
    begin_kept(owned, "new")
    owned.kill()
    owned.start()
    (bitmap,) = found(owned)
    assert (bitmap.name, bitmap.believed) == ("stored", False)
    with connected(owned) as machine:
        for attempt in ([Stop("kept", "stored")], [Start("kept", "stored")]):
            with pytest.raises(errors.HeadstartError):
                machine.transact(attempt)
        with pytest.raises(errors.HeadstartError):
            machine.changed({"kept": ["stored"]})
        machine.transact([Remove("kept", "stored")])
    assert found(owned) == []


def begin_kept(owned: Owned, name: str) -> None:
    with connected(owned) as machine:
        machine.transact([Start("kept", name)])


def test_a_broken_bitmap_stays_broken_through_a_clean_end(owned: Owned) -> None:
    begin(owned, "a")
    owned.stop()
    owned.start()
    owned.kill()
    owned.start()
    owned.stop()
    owned.start()
    (bitmap,) = found(owned)
    assert not bitmap.believed


@pytest.mark.parametrize("carried", [True, False])
def test_a_migration_takes_along_what_it_is_told_to(owned: Owned, carried: bool) -> None:
    """Without the capability bitmaps go the way of the image, as in a restart."""
    begin(owned, "a", "b")
    owned.write("kept", 3)
    owned.write("lost", 3)
    with connected(owned) as machine:
        machine.transact([Stop("kept", "b")])
    assert owned.migrate(carried=carried)
    owned.write("kept", 5)
    owned.write("lost", 5)
    assert found(owned) == [Bitmap("a", True, True, True), Bitmap("b", False, True, True)]
    assert (changed(owned, "a"), changed(owned, "b")) == ({3, 5}, {3})
    assert [bitmap.name for bitmap in found(owned, "lost")] == (["a", "b"] if carried else [])
    if carried:
        assert changed(owned, "a", "lost") == {3, 5}


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("broken", [True, False], ids=["broken", "sunk"])
def test_bitmaps_that_cannot_be_sent(owned: Owned, carried: bool, broken: bool) -> None:
    """QEMU sends all or none; where it is not to send any it does not mind."""
    begin(owned, "a")
    if broken:
        owned.stop()
        owned.start()
        owned.kill()
        owned.start()
    else:
        owned.overlay()
    assert owned.migrate(carried=carried) is not carried
    assert [bitmap.believed for bitmap in found(owned)] == [False]
    with connected(owned) as machine:
        machine.transact([Start("kept", "b")])


def test_an_image_put_back_brings_its_bitmaps(owned: Owned) -> None:
    begin(owned, "a")
    owned.write("kept", 1)
    owned.stop()
    owned.save()
    owned.start()
    owned.write("kept", 2)
    begin_kept(owned, "b")
    owned.stop()
    owned.put_back()
    owned.start()
    assert found(owned) == [Bitmap("a", True, True, True)]
    assert changed(owned, "a") == {1}


def test_an_image_copied_while_it_is_in_use_has_broken_bitmaps(owned: Owned) -> None:
    begin(owned, "a")
    owned.stop()
    owned.start()
    owned.save()
    owned.stop()
    owned.put_back()
    owned.start()
    (bitmap,) = found(owned)
    assert not bitmap.believed


def test_a_snapshot_by_somebody_else_sinks_bitmaps(owned: Owned) -> None:
    begin(owned, "a")
    owned.write("kept", 1)
    owned.overlay()
    owned.write("kept", 2)
    assert found(owned) == [Bitmap("a", True, False, True)]
    with connected(owned) as machine:
        assert len(inventory_layers(machine)) == 2
        for attempt in ([Remove("kept", "a")], [Stop("kept", "a")]):
            with pytest.raises(errors.HeadstartError):
                machine.transact(attempt)
        with pytest.raises(errors.HeadstartError):
            machine.changed({"kept": ["a"]})
        machine.transact([Start("kept", "a")])
    assert [bitmap.believed for bitmap in found(owned)] == [True, False]
    assert changed(owned, "a") == set()


def test_a_commit_tells_the_bitmaps_below_what_was_in_the_overlay(owned: Owned) -> None:
    begin(owned, "a")
    owned.write("kept", 1)
    owned.overlay()
    owned.write("kept", 2)
    owned.commit()
    owned.write("kept", 3)
    assert found(owned) == [Bitmap("a", True, True, True)]
    assert changed(owned, "a") == {1, 2, 3}
    owned.stop()
    owned.start()
    assert changed(owned, "a") == {1, 2, 3}


def inventory_layers(machine: Machine) -> list[str]:
    disk = machine.inventory().disk("kept")
    assert disk is not None
    return [layer.path for layer in disk.layers]


def test_temporary_writes_leave_bitmaps_as_they_were(owned: Owned) -> None:
    begin(owned, "a")
    owned.write("kept", 1)
    owned.stop()
    owned.start(temporary=True)
    owned.write("kept", 2)
    assert [bitmap.believed for bitmap in found(owned)] == [False]
    begin_kept(owned, "b")
    owned.stop()
    owned.start()
    assert found(owned) == [Bitmap("a", True, True, True)]
    assert changed(owned, "a") == {1}


def test_a_shrunk_and_grown_disk_leaves_no_trace(owned: Owned) -> None:
    begin(owned, "a")
    owned.write("kept", 30)
    owned.write("kept", 2)
    owned.resize(20)
    assert changed(owned, "a") == {2}
    owned.resize(40)
    assert found(owned) == [Bitmap("a", True, True, True)]
    assert changed(owned, "a") == {2}
    with connected(owned) as machine:
        disk = machine.inventory().disk("kept")
        assert disk is not None
        with machine.live(["kept"]) as readers:
            assert readers["kept"].size == disk.size


def test_a_point_in_time_survives_nothing(owned: Owned) -> None:
    """The VM is killed while a point stands: nothing of it is there afterwards."""
    with connected(owned) as machine, contextlib.ExitStack() as stack:
        point = stack.enter_context(machine.take(PointRequest((Start("kept", "a"),), (), {}, freeze=False)))
        owned.kill()
        with pytest.raises((errors.PointLost, errors.Unreachable)):
            point.check()
    owned.start()
    assert found(owned) == []
    with connected(owned) as machine, machine.take(PointRequest((), (), {}, freeze=False)) as point:
        point.release()


def test_nobody_listens_when_the_vm_is_off(owned: Owned) -> None:
    machine = owned.connect()
    owned.stop()
    with pytest.raises(errors.Unreachable):
        machine.inventory()
    machine.close()
    with pytest.raises(errors.Unreachable):
        owned.connect()
