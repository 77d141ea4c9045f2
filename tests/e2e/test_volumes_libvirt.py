"""Volumes that a policy leaves out of the disks of a domain of libvirt's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.choosing import Choosing
from tests.e2e.virt import VirtRig
from tests.kit import layouts
from tests.kit.disks import MIB, Format
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd

pytestmark = pytest.mark.vm

FSTAB = "LABEL=system / ext4 defaults 0 1\nLABEL=scratch /tmp ext4 noatime 0 0\n"
BLOCK = 65536


class VirtChoosing(Choosing, VirtRig):
    """By libvirt's names of disks."""


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_partitions_are_left_out_and_come_back(kind: Format, tmp_path: Path) -> None:
    disk = layouts.as_disk(layouts.system(tmp_path, FSTAB), "system", kind)
    with Libvirtd() as daemon, Domain(daemon, "volumes", [disk]) as vm:
        rig = VirtChoosing(tmp_path / "rig", vm)
        name = rig.called("system")
        rig.patterns = ("*", "!swap", "!/tmp")
        rig.precopy()
        first = rig.chosen_backup()
        assert first.excluded[name].keys() == {f"{name}/2", f"{name}/3"}, first.report.notes
        # What is written in the root is in the next one, what is written in what is left out is not.
        device = vm.device("system")
        for volume, at in (("root", layouts.ROOT[0] + 20), ("scratch", layouts.SCRATCH[0] + 8)):
            vm.guest.write(device, at * MIB, BLOCK, seed=volume)
        second = rig.chosen_backup()
        assert second.excluded == first.excluded
        assert second.volume(f"{name}/1").changed_bytes >= BLOCK and second.volume(f"{name}/1").mounted == ("/",)
        assert second.report.disks[0].changed_bytes < 4 * BLOCK
        # What stops being left out is read whole, and all counts as changed but where a raw disk is compared.
        rig.patterns = ("*",)
        third = rig.chosen_backup()
        assert third.excluded[name] == {}
        least = 1 if kind == "raw" else layouts.SWAP[1] + layouts.SCRATCH[1]
        assert third.report.disks[0].changed_bytes >= least * MIB
        rig.release()
