"""A raw disk on overlays of ours: exact, and with its head start over every end of QEMU and of the tool."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.backup.complete import Options
from headstart.hypervisor.contract import Migrating
from headstart.state.journal import Journal
from headstart.tracking.choice import Wish
from tests.e2e.rig import NAME, Exact, Rig, digest
from tests.kit import disks, layers, travel, workloads
from tests.kit.cli import Cli
from tests.kit.qmp import QmpError
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
DATA_SIZE = 32 * MIB + 5 * disks.SECTOR
#: Nothing else writes here.
QUIET = 20 * MIB


class Layered:
    """A VM with a qcow2 and a raw disk, the latter started from what the installation's head leads to."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.raw = disks.make_filled(folder / "data.raw", DATA_SIZE)
        with Journal.open(folder / "rig" / "state") as journal:
            self.head = layers.cover(self.raw, journal.installation)
        system = disks.make_filled(folder / "system.qcow2", 8 * MIB, "qcow2")
        data = disks.Disk(self.head, "qcow2", "data", interface="virtio-scsi")
        self.vm = stack.enter_context(Vm((disks.Disk(system, "qcow2", "system"), data)))
        self.rig = Rig(folder / "rig", self.vm, track=Wish.OVERLAY)
        self._seeds = itertools.count()

    def write(self, first: int, count: int, start: int = QUIET) -> None:
        """Blocks of the raw disk, synced."""
        device = self.vm.device("data")
        self.vm.guest.write(device, start + first * BLOCK, count * BLOCK, seed=next(self._seeds))

    def again(self) -> None:
        """The owner starts the VM as ever."""
        self.vm.start()
        self.vm.wait_ready()
        self.rig.follow(self.vm)

    def exact(self, *, compared: bool = False) -> Exact:
        """A backup of what the guest reads, which is not compared."""
        exact = self.rig.exact_backup()
        found = exact.disk("data")
        assert found.tracking == "overlay"
        assert found.compared is compared, found.reason
        assert len(layers.chain(self.head)) <= 3
        return exact


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layered]:
    with contextlib.ExitStack() as stack:
        made = Layered(tmp_path_factory.mktemp("layered"), stack)
        stack.callback(lambda: made.vm.close())
        made.rig.backup()
        yield made


def test_rounds_and_backups_under_constant_writes(layered: Layered) -> None:
    rig, machine = layered.rig, layered.vm
    regions = [workloads.Region(machine.device("data"), 4 * MIB, 12 * MIB)]
    with workloads.churn(machine.guest, regions, rate=6 * MIB, write_size=BLOCK // 4, sync_every=4) as churn:
        for number in range(3):
            for turn in range(2):
                churn.wait_changed((2 * number + turn) * MIB)
                layered.write(16 * turn, 16)
                rig.precopy()
                assert len(layers.chain(layered.head)) == 2, "committed before anything is copied"
            options = Options(plain=number == 1)
            found = rig.exact_backup(options).disk("data")
            assert not found.compared
            assert number == 1 or found.precopied_bytes >= 2 * MIB
    assert digest(layered.exact().image("data")) == machine.guest.hash(machine.device("data"))


def test_a_restart_keeps_the_head_start(layered: Layered) -> None:
    layered.write(0, 16)
    layered.rig.precopy()
    layered.write(32, 4)
    layered.vm.quit()
    layers.assert_sound(layered.head)
    layered.again()
    exact = layered.exact()
    assert exact.disk("data").precopied_bytes >= 16 * BLOCK
    assert exact.disk("data").changed_bytes < 2 * MIB
    assert digest(exact.image("data")) == layered.vm.guest.hash(layered.vm.device("data"))


def test_a_vm_that_is_off_is_backed_up_with_its_overlays(layered: Layered) -> None:
    layered.write(0, 4)
    layered.rig.precopy()
    layered.write(2, 4)
    expected = layered.vm.guest.hash(layered.vm.device("data"))
    layered.vm.quit()
    report = layered.rig.backup()
    assert report.consistency == "offline"
    assert digest(layered.rig.restore(report.snapshot)["dev-data"]) == expected
    layered.again()
    layered.exact(compared=True)


def test_a_killed_qemu_keeps_the_head_start(layered: Layered) -> None:
    layered.write(0, 16)
    layered.rig.precopy()
    layered.write(8, 4)
    layered.vm.kill()
    layered.again()
    exact = layered.exact()
    assert exact.disk("data").precopied_bytes >= 12 * BLOCK
    assert digest(exact.image("data")) == layered.vm.guest.hash(layered.vm.device("data"))


#: Where the tool is killed: between all steps that leave something on the disk or in QEMU.
PLACES = [
    ("--after", "headstart.hypervisor.overlays:Place.create:1"),
    ("--after", "headstart.hypervisor.overlays:Place.note:1"),
    ("--before", "headstart.hypervisor.overlays:Place.point:1"),
    ("--after", "headstart.hypervisor.overlays:Place.point:1"),
    ("--before", "headstart.hypervisor.qemu.overlaying:Overlaying.remove:1"),
    ("--before", "headstart.hypervisor.qemu.jobs:wait:1"),
    ("--before", "headstart.hypervisor.qemu.overlaying:Overlaying._clear_away:1"),
    ("--before", "headstart.hypervisor.overlays:Place.remove:1"),
    ("--after", "headstart.hypervisor.qemu.machine:QemuMachine.flush:1"),
    ("--before", "headstart.hypervisor.qemu.pull:PullPoint._offer:1"),
    ("--before", "headstart.backup.publish:run:1"),
]


#: Of these, after which a start must open another file than before.
MOVED = PLACES[3:8]


@pytest.mark.parametrize(
    ("moment", "place", "ended"),
    [*((*each, False) for each in PLACES), *((*each, True) for each in MOVED)],
)
def test_the_tool_is_killed(layered: Layered, moment: str, place: str, ended: bool) -> None:
    """``ended``: and QEMU with it."""
    layered.write(0, 8)
    layered.rig.precopy()
    layered.write(2, 4)
    process = Cli(layered.rig.folder).start("backup", NAME, faults=[moment, place])
    said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    if ended:
        layered.vm.kill()
        layered.again()
    layered.write(4, 4)
    exact = layered.exact()
    assert digest(exact.image("data")) == layered.vm.guest.hash(layered.vm.device("data"))


def test_an_old_state_or_a_start_from_the_image_is_compared(layered: Layered) -> None:
    """What the overlay had is set aside when the image itself was started from, and both are told."""
    rig = layered.rig
    layered.write(0, 4)
    rig.precopy()
    layered.write(8, 4)
    layered.vm.quit()
    disk = layered.vm.disks[1]
    layered.vm.disks = (layered.vm.disks[0], disks.Disk(layered.raw, "raw", "data", interface="virtio-scsi"))
    layered.again()
    exact = rig.exact_backup()
    assert exact.disk("data").tracking == "bitmap" and exact.disk("data").compared
    assert any("set aside" in note for note in exact.report.notes)
    assert list(layered.raw.parent.glob("data.raw.headstart.aside-*"))
    layered.vm.disks = (layered.vm.disks[0], disk)
    layered.vm.quit()
    layered.again()
    layered.exact(compared=True)
    layered.write(0, 1)
    layered.exact()


def test_a_migration_comes_with_its_owners_word(layered: Layered) -> None:
    """Refused before; then the VM arrives under constant writes, with its head start, and goes on being recorded."""
    rig, old = layered.rig, layered.vm
    layered.write(0, 16)
    rig.precopy()
    with pytest.raises(QmpError, match="vm-move-1st' does not support live migration"):
        old.qmp("migrate", uri="unix:/nowhere")
    assert rig.cli.run("vm", "move", NAME).json["notes"] == []
    new = travel.waiting(old)
    try:
        for verb in (rig.precopy, rig.backup):
            with pytest.raises(Migrating, match="vm stay"):
                verb()
        regions = [workloads.Region(old.device("data"), 4 * MIB, 8 * MIB)]
        churn = workloads.churn(old.guest, regions, rate=2 * MIB, write_size=BLOCK // 4, sync_every=4)
        churn.wait_changed(MIB)
        travel.begin(old, new, new.qmp_socket.with_name("migration"), bitmaps=False)
        assert travel.wait(old, *travel.OVER) == "completed", old.log
        new.wait_event("RESUME")
        # The guest goes on writing where it is now.
        assert new.guest.stop_workload(churn.number) == 0
    except BaseException:
        new.close()
        raise
    old.close()
    layered.vm = new
    rig.follow(new)
    layered.write(16, 4)
    exact = layered.exact()
    assert exact.disk("data").precopied_bytes >= 12 * BLOCK
    assert digest(exact.image("data")) == new.guest.hash(new.device("data"))
    with pytest.raises(QmpError, match="does not support live migration"):
        new.qmp("migrate", uri="unix:/nowhere")
