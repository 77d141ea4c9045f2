"""Rounds of a domain of libvirt's at an appliance: its disk is offered in spells, a job of libvirt's each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.appliance import keys
from headstart.backup.transport import Transport
from headstart.hypervisor.libvirt.live import SlicedReader
from tests.e2e.appliances import another_machine, relays
from tests.e2e.virt import VirtRig
from tests.kit import disks, workloads
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 48 * MIB + 3 * disks.SECTOR


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    folder = tmp_path_factory.mktemp("disks")
    disk = disks.Disk(disks.make_filled(folder / "data.qcow2", SIZE, "qcow2"), "qcow2", "data")
    with Libvirtd() as daemon, Domain(daemon, "offered", [disk]) as vm:
        yield vm


def test_rounds_under_writes_are_exact(tmp_path: Path, machine: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one of the two is killed."""
    monkeypatch.setattr(SlicedReader, "spell_seconds", 0.2)
    rig = VirtRig(tmp_path / "rig", machine)
    keys.make(tmp_path / "keys")
    device = machine.device("data")
    region = workloads.Region(device, 4 * MIB, 8 * MIB)
    with (
        another_machine(rig),
        another_machine(rig) as second,
        workloads.churn(machine.guest, [region], rate=2 * MIB, write_size=16 * 1024, sync_every=4) as churn,
    ):
        for number in range(2):
            churn.wait_changed((number + 1) * MIB)
            machine.guest.write(device, 20 * MIB, (number + 1) * MIB, seed=number)
            done = rig.precopy(transport=Transport.APPLIANCE)
            assert done.transport == "appliance" and done.remaining_bytes == 0 and not done.notes, done
        exact = rig.exact_backup()
        assert exact.disk("data").precopied_bytes >= MIB, exact.report
        second.kill()
        machine.guest.write(device, 20 * MIB, 2 * MIB, seed="after")
        assert rig.precopy().remaining_bytes == 0
        rig.exact_backup()
    assert not relays()
    rig.release()
