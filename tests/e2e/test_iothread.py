"""Disks in an iothread are copied ahead by the host, raw ones as the file that they are, others in slices that QEMU
copies: every byte right."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headstart.backup import slices
from headstart.backup.transport import Transport
from headstart.tracking.choice import Wish
from headstart.units import BLOCK_SIZE
from tests.e2e.rig import Rig
from tests.kit import disks, places, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 32 * MIB + 3 * disks.SECTOR


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_rounds_and_backups_under_constant_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_format: disks.Format
) -> None:
    # Several slices in a round.
    monkeypatch.setattr(slices, "LONGEST", 2 * MIB)
    chosen = disks.Disk(disks.make_filled(tmp_path / "data", SIZE, image_format), image_format, "data", iothread=True)
    other = disks.Disk(disks.make_filled(tmp_path / "other.qcow2", 8 * MIB, "qcow2"), "qcow2", "other")
    with Vm((chosen, other)) as vm:
        rig = Rig(tmp_path / "rig", vm)
        device = vm.device("data")
        region = workloads.Region(device, 4 * MIB, 12 * MIB)
        with workloads.churn(vm.guest, [region], rate=6 * MIB, write_size=BLOCK_SIZE // 4, sync_every=4) as churn:
            for number in range(2):
                for turn in range(2):
                    churn.wait_changed((2 * number + turn) * MIB)
                    vm.guest.write(device, 24 * MIB, (turn + 1) * MIB, seed=f"{number}{turn}")
                    vm.guest.write(vm.device("other"), MIB, MIB, seed=f"{number}{turn}")
                    done = rig.precopy(transport=Transport.HOST)
                    assert done.transport == "host" and done.remaining_bytes == 0 and not done.notes, done
                exact = rig.exact_backup()
                assert exact.disk("data").precopied_bytes >= MIB, exact.report
        assert vm.running
        rig.release()


def test_a_slice_that_cannot_be_had_costs_its_head_start_alone(tmp_path: Path) -> None:
    """There is no room for it: the round goes on, and says so."""
    chosen = disks.Disk(disks.make_filled(tmp_path / "data", 8 * MIB, "qcow2"), "qcow2", "data", iothread=True)
    with Vm((chosen,)) as vm:
        rig = Rig(tmp_path / "rig", vm)
        rig.backup()
        vm.guest.write(vm.device("data"), MIB, MIB, seed="first")
        with places.small(rig.scratch, MIB // 2):
            done = rig.precopy(transport=Transport.HOST)
        assert done.remaining_bytes >= MIB and any("remains to be copied" in note for note in done.notes), done
        assert rig.precopy(transport=Transport.HOST).remaining_bytes == 0
        rig.exact_backup()


def test_compared_beside_another_disk(tmp_path: Path) -> None:
    """Nothing records; QEMU copies all of both for the window."""
    chosen = disks.Disk(disks.make_filled(tmp_path / "data", 8 * MIB, "qcow2"), "qcow2", "data", iothread=True)
    other = disks.Disk(disks.make_filled(tmp_path / "other.raw", 4 * MIB), "raw", "other")
    with Vm((chosen, other)) as vm:
        rig = Rig(tmp_path / "rig", vm, track=Wish.COMPARE)
        rig.precopy(transport=Transport.HOST)
        for name in ("data", "other"):
            vm.guest.write(vm.device(name), MIB, MIB, seed="again")
        made = rig.exact_backup().report
        assert {disk.tracking for disk in made.disks} == {"comparison"}
        assert sum(disk.precopied_bytes for disk in made.disks) >= 8 * MIB, "what the round had copied was used"
        assert not any(rig.bitmaps().values()) and vm.running


def test_a_host_that_is_killed_in_a_slice_leaves_nothing(tmp_path: Path) -> None:
    chosen = disks.Disk(disks.make_filled(tmp_path / "data", 96 * MIB, "qcow2"), "qcow2", "data", iothread=True)
    with Vm((chosen,)) as vm:
        rig = Rig(tmp_path / "rig", vm)
        killed = rig.cli.start("precopy", "guest", "--transport", "host")
        deadline = time.monotonic() + 60
        while not any("-push0" in node["node-name"] for node in vm.qmp("query-named-block-nodes", flat=True)):
            assert time.monotonic() < deadline and killed.poll() is None, killed.communicate()
        killed.kill()
        killed.communicate()
        vm.guest.write(vm.device("data"), MIB, MIB, seed="after")
        assert rig.precopy(transport=Transport.HOST).remaining_bytes == 0
        rig.exact_backup()
        assert vm.running
