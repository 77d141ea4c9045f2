"""A VM that was restored is started by libvirt, with the definition beside its disks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import libvirt
import libvirt_qemu
import pytest

from tests.e2e.rig import Rig, digest
from tests.e2e.virt import VirtRig
from tests.kit import disks, guest, libvirtd
from tests.kit.disks import MIB
from tests.kit.domain import Domain, open_up
from tests.kit.libvirtd import Libvirtd
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

SIZE = 24 * MIB + 3 * disks.SECTOR


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with Libvirtd() as running:
        yield running


def define(daemon: Libvirtd, definition: Path) -> None:
    for folder in (definition, *definition.parent.iterdir()):
        open_up(folder)
    subprocess.run(["virsh", "-q", "-c", daemon.uri, "define", definition], check=True, timeout=60)


def test_a_domain(daemon: Libvirtd, tmp_path: Path) -> None:
    data = disks.Disk(disks.make_filled(tmp_path / "data.qcow2", SIZE, "qcow2"), "qcow2", "data")
    left = disks.Disk(disks.make_filled(tmp_path / "left.raw", MIB), "raw", "left")
    with Domain(daemon, "define", [data, left]) as vm:
        rig = VirtRig(tmp_path / "rig", vm, excluded=(vm.target("left"),))
        vm.guest.write(vm.device("data"), 4 * MIB, MIB, seed="before")
        made = rig.backup()
        content, uuid = vm.guest.hash(vm.device("data")), vm.virt.UUIDString()
        restored = rig.restore(made.snapshot, "qcow2")
        vm.guest.write(vm.device("data"), 8 * MIB, MIB, seed="lost")
        libvirtd.undefine(vm.virt)
        data.path.unlink()
        left.path.unlink()
        define(daemon, restored["vda"].parent / "domain.xml")
        assert vm.virt.UUIDString() == uuid
        vm.virt.create()
        vm.follow()
        assert vm.guest.hash(vm.device("data")) == content
        [entry] = vm.qmp("query-block")
        assert entry["inserted"]["file"] == str(restored["vda"])


def test_a_vm_of_plain_qemu(daemon: Libvirtd, tmp_path: Path) -> None:
    pair = (
        disks.Disk(disks.make_filled(tmp_path / "one.qcow2", SIZE, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_filled(tmp_path / "two.raw", SIZE, seed=3), "raw", "two", "virtio-scsi"),
    )
    with Vm(pair) as vm:
        rig = Rig(tmp_path / "rig", vm, qga=False)
        made = rig.backup()
        content = {name: vm.guest.hash(vm.device(name)) for name in ("one", "two")}
    raw = rig.restore(made.snapshot, "raw")
    assert {name: digest(raw[f"dev-{name}"]) for name in content} == content
    restored = rig.restore(made.snapshot, "vmdk")
    definition = restored["dev-one"].parent / "domain.xml"
    text = definition.read_text()
    image = guest.build()
    for theirs, ours in zip((image.kernel, image.initrd), daemon.guest_image(image), strict=True):
        text = text.replace(f">{theirs}<", f">{ours}<")  # QEMU's user may not read theirs
    definition.write_text(text.replace("<name>guest<", f"<name>{libvirtd.PREFIX}guest<"))
    define(daemon, definition)
    connection = libvirt.open(daemon.uri)
    domain = connection.lookupByName(f"{libvirtd.PREFIX}guest")
    try:
        domain.create()
        assert domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING and domain.maxMemory() == 256 * 1024
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-block"}', 0))["return"]
        assert {entry["inserted"]["file"] for entry in answer} == {str(path) for path in restored.values()}
        assert {entry["inserted"]["drv"] for entry in answer} == {"vmdk"}
    finally:
        libvirtd.undefine(domain)
        connection.close()
