"""The daemon over a domain of libvirt's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hosted import hosted
from tests.e2e.virt import VirtRig
from tests.kit import disks, workloads
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd

pytestmark = [pytest.mark.vm, pytest.mark.alone]

MIB = disks.MIB
SIZE = 32 * MIB


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    folder = tmp_path_factory.mktemp("disks")
    chosen = [disks.Disk(disks.make_filled(folder / "data.qcow2", SIZE, "qcow2"), "qcow2", "data")]
    with Libvirtd() as running, Domain(running, "hosted", chosen) as vm:
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Domain) -> Iterator[VirtRig]:
    made = VirtRig(tmp_path / "rig", machine)
    yield made
    made.release()
    assert not any(made.checkpoints().values())


def test_rounds_and_backups_of_a_domain(machine: Domain, rig: VirtRig) -> None:
    device = machine.device("data")
    with (
        workloads.churn(machine.guest, [workloads.Region(device, 0, 4 * MIB)], rate=MIB),
        hosted(rig) as daemon,
    ):
        daemon.configure(["*:*:0/15"])
        daemon.start()
        for number in range(2):
            daemon.wait_backups(number + 1)
            machine.guest.write(device, 16 * MIB, 2 * MIB, seed=number)
        daemon.wait_said("by=agent", 20)
        daemon.wait_backups(3)
        made = daemon.runs("backup")
        assert made[1]["base"] == made[0]["snapshot"]
        for each in made:
            assert each["created"] % 15 < 6, each
            assert not any(disk["compared"] for disk in each["disks"])
        for each in made[1:]:
            assert sum(disk["precopied_bytes"] for disk in each["disks"]) >= 2 * MIB, each
