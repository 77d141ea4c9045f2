"""A raw disk in an iothread is copied ahead by the host, as the file that it is: every byte right."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.backup.transport import Transport
from headstart.units import BLOCK_SIZE
from tests.e2e.rig import Rig
from tests.kit import disks, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 32 * MIB + 3 * disks.SECTOR


def test_rounds_and_backups_under_constant_writes(tmp_path: Path) -> None:
    raw = disks.Disk(disks.make_filled(tmp_path / "data.raw", SIZE), "raw", "data", iothread=True)
    other = disks.Disk(disks.make_filled(tmp_path / "other.qcow2", 8 * MIB, "qcow2"), "qcow2", "other")
    with Vm((raw, other)) as vm:
        rig = Rig(tmp_path / "rig", vm)
        device = vm.device("data")
        region = workloads.Region(device, 4 * MIB, 12 * MIB)
        with workloads.churn(vm.guest, [region], rate=6 * MIB, write_size=BLOCK_SIZE // 4, sync_every=4) as churn:
            for number in range(2):
                for turn in range(2):
                    churn.wait_changed((2 * number + turn) * MIB)
                    vm.guest.write(device, 24 * MIB, (turn + 1) * MIB, seed=f"{number}{turn}")
                    done = rig.precopy(transport=Transport.HOST)
                    assert done.transport == "host" and done.remaining_bytes == 0, done
                exact = rig.exact_backup()
                assert exact.disk("data").precopied_bytes >= MIB, exact.report
        assert vm.running
        rig.release()
