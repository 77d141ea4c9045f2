"""Logical volumes over two disks: read through the agent, every byte right, and told as extents of the disks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headstart.backup import inspection
from headstart.backup.transport import Transport
from tests.e2e.agents import wait_for_agentd
from tests.e2e.rig import NAME, Rig
from tests.kit import disks, lvm, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 64 * MIB
BLOCK = 64 * 1024


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("lvm")
    chosen = (
        disks.Disk(disks.make_empty(folder / "one.qcow2", SIZE, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_empty(folder / "two.raw", SIZE), "raw", "two", interface="virtio-scsi"),
        lvm.disk(folder),
    )
    with Vm(chosen) as vm:
        tools = lvm.Lvm(vm.guest, vm.device("lvm"))
        devices = (vm.device("one"), vm.device("two"))
        tools.run("pvcreate", *devices)
        tools.run("vgcreate", "my-group", *devices)
        tools.run("lvcreate", "--zero", "n", "--name", "striped", "--stripes", "2", "--size", "24M", "my-group")
        tools.run("lvcreate", "--zero", "n", "--name", "joined", "--extents", "100%FREE", "my-group")
        wait_for_agentd(vm)
        yield vm


@pytest.fixture(scope="module")
def rig(machine: Vm, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("rig") / "rig", machine, agent=True)


def test_cycles_of_writes_into_logical_volumes(machine: Vm, rig: Rig) -> None:
    regions = [
        workloads.Region("/dev/mapper/my--group-striped", 0, 16 * MIB),
        workloads.Region("/dev/mapper/my--group-joined", 40 * MIB, 24 * MIB),
    ]
    with workloads.churn(machine.guest, regions, rate=6 * MIB, write_size=BLOCK // 4, sync_every=4) as churn:
        for number in range(2):
            for turn in range(2):
                churn.wait_changed((3 * number + turn + 1) * MIB)
                assert rig.precopy(transport=Transport.AGENT).transport == "agent"
            exact = rig.exact_backup()
            assert all(disk.precopied_bytes for disk in exact.report.disks), exact.report


@pytest.mark.parametrize("volume", ["striped", "joined"])
def test_where_a_logical_volume_lies(machine: Vm, rig: Rig, volume: str) -> None:
    """Marks written into the volume are at the places that were told, and nowhere else."""
    path = f"/dev/my-group/{volume}"
    with rig.context() as context:
        found = inspection.locate(context, NAME, path)
    assert found.kind == "lvm" and {disk["name"] for disk in found.disks} == {"dev-one", "dev-two"}
    size = int(machine.guest.run(f"blockdev --getsize64 /dev/mapper/my--group-{volume}").output)
    assert found.bytes == size
    machine.guest.write(f"/dev/mapper/my--group-{volume}", 0, size, byte=0xA5)
    images = rig.exact_backup().seen
    for disk in found.disks:
        content = images[disk["name"]].read_bytes()
        for start, length in disk["extents"]:
            assert content[start : start + length] == b"\xa5" * length
            content = content[:start] + bytes(length) + content[start + length :]
        assert b"\xa5" * 4096 not in content
    machine.guest.write_zeroes(f"/dev/mapper/my--group-{volume}", 0, size)
