"""A VM on overlays is migrated with its owner's word only, and never to a QEMU that has an old chain open."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headstart.blocks import Blocks
from headstart.hypervisor.contract import Migrating, Remove, Start
from headstart.hypervisor.inventory import Recorder
from headstart.hypervisor.qemu import checkup
from headstart.hypervisor.recording import Recording
from tests.hypervisor.qemu import bare
from tests.hypervisor.qemu.layered import BLOCK, DISK, arguments, connected, head, rotate
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import layers, travel
from tests.kit.qmp import QmpError

pytestmark = pytest.mark.vm


def depart(here: bare.Bare, there: bare.Bare) -> str:
    travel.begin(here, there, there.folder / "migration", bitmaps=False)
    return travel.wait(here, *travel.OVER)


def test_it_is_refused_until_its_owner_says_so(tmp_path: Path) -> None:
    """Then the chain stays as it is until the VM has arrived, and goes on there."""
    link = head(tmp_path)
    with bare.running(*arguments(link)) as here:
        rotate(here, "a")
        here.write(DISK, 0, BLOCK, 1)
        with pytest.raises(QmpError, match=f"headstart-{INSTALLATION}-vm-move-1st' does not support live migration"):
            here.qmp("migrate", uri="unix:/nowhere")
        with connected(here) as machine:
            assert machine.let_move()
        recording = Recording(INSTALLATION, here.scratch, wanted=True)
        assert any("vm stay" in each for each in checkup.look(here.monitor, recording, (), BLOCK).works)
        before = layers.chain(link)
        with bare.running(*arguments(link), "-incoming", "defer") as there:
            for ended in ((), ("a",)):
                with pytest.raises(Migrating, match="vm stay"):
                    rotate(here, "b", *ended)
            assert layers.chain(link) == before
            here.write(DISK, BLOCK, BLOCK, 2)
            assert depart(here, there) == "completed"
            here.close()
            with connected(there) as machine:
                assert machine.changed({DISK: ["a"]})[DISK] == Blocks([0, 1])
            rotate(there, "b", "a")
            for block, pattern in ((0, 1), (1, 2)):
                assert there.read_is(DISK, block * BLOCK, BLOCK, pattern)
            with pytest.raises(QmpError, match="does not support live migration"):
                there.qmp("migrate", uri="unix:/nowhere")


def test_it_stays_after_all(tmp_path: Path) -> None:
    link = head(tmp_path)
    with bare.running(*arguments(link)) as here:
        rotate(here, "a")
        with connected(here) as machine:
            assert machine.let_move()
            machine.let_stay()
        rotate(here, "b", "a")
        with pytest.raises(QmpError, match="does not support live migration"):
            here.qmp("migrate", uri="unix:/nowhere")


@pytest.mark.parametrize("settled", [True, False])
def test_a_qemu_that_was_started_too_early_writes_nothing(tmp_path: Path, settled: bool) -> None:
    """Not to the overlay that it knows, be it a part of the chain still or removed; the guest goes on where it was."""
    link = head(tmp_path)
    with bare.running(*arguments(link)) as here, bare.running(*arguments(link), "-incoming", "defer") as there:
        with connected(here) as machine:
            machine.transact([Start(DISK, "a")])
            if settled:
                machine.settle([DISK])
        here.write(DISK, 0, BLOCK, 1)
        with connected(here) as machine:
            machine.let_move()
        travel.begin(here, there, there.folder / "migration", bitmaps=False)
        travel.wait(here, *travel.OVER)
        time.sleep(0.5)
        assert there.status != "running"
        assert "cannot be opened read/write" in (there.folder / "log").read_text()
        there.close()
        here.qmp("cont")
        assert here.status == "running"
        assert here.read_is(DISK, 0, BLOCK, 1)
        here.write(DISK, BLOCK, BLOCK, 2)
        with connected(here) as machine:
            machine.let_stay()
        rotate(here, "b", "a")
        assert here.read_is(DISK, 0, BLOCK, 1) and here.read_is(DISK, BLOCK, BLOCK, 2)
    assert (tmp_path / "data.raw").read_bytes()[: 2 * BLOCK] == b"\1" * BLOCK + b"\2" * BLOCK


def test_none_begins_while_it_is_on_its_way(tmp_path: Path) -> None:
    """The node that is in its way cannot be added then."""
    link = head(tmp_path)
    with bare.running(*arguments(link)) as here, bare.running(*arguments(link), "-incoming", "defer") as there:
        with connected(here) as machine:
            travel.begin(here, there, there.folder / "migration", bitmaps=False, bandwidth=1 << 14)
            with pytest.raises(Migrating, match="is being migrated"):
                machine._anchor.hold()
            with pytest.raises(Migrating, match="is being migrated"):
                machine.transact([Start(DISK, "a")])
        assert len(layers.chain(link)) == 2


def test_where_nothing_may_be_in_its_way_no_overlay_records(tmp_path: Path) -> None:
    with bare.running(*arguments(head(tmp_path)), "-only-migratable") as here, connected(here) as machine:
        [disk] = machine.inventory().disks
        assert disk.recorder is Recorder.BITMAP and "-only-migratable" in disk.unlayered
        machine.transact([Start(DISK, "a")])
        assert [each.name for each in machine.bitmaps()[DISK]] == ["a"]


def test_it_goes_with_the_last_mark(tmp_path: Path) -> None:
    with bare.running(*arguments(head(tmp_path))) as here:
        rotate(here, "a")
        with connected(here) as machine:
            machine.transact([Remove(DISK, "a")])
        assert not any("vm-move" in each for each in here.leftovers("headstart-"))
        assert "blocked-reasons" not in here.qmp("query-migrate")
