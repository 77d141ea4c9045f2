"""Which disks are found in a QEMU, and under what names."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import PointRequest, Remove, Start
from headstart.hypervisor.inventory import Disk, Inventory
from tests.hypervisor.qemu import bare, points

pytestmark = pytest.mark.vm


def look(*arguments: str, **options: Any) -> Inventory:
    with bare.running("-S", *arguments) as vm, vm.machine(**options) as machine:
        return machine.inventory()


def reasons(inventory: Inventory) -> dict[str, str]:
    return {left.name: left.reason for left in inventory.left_out}


def only(inventory: Inventory) -> Disk:
    (disk,) = inventory.disks
    return disk


def test_a_disk_is_told_in_full(tmp_path: Path) -> None:
    path = bare.image(tmp_path / "image.qcow2", "5M")
    disk = only(look(*bare.disk("one", path, "qcow2", "virtio-blk-pci", "serial=S1")))
    assert (disk.name, disk.size, disk.format, disk.serial) == ("dev-one", 5 << 20, "qcow2", "S1")
    assert disk.interface.startswith("virtio-blk")
    assert disk.persistent
    assert not disk.unreadable
    (layer,) = disk.layers
    assert (layer.path, layer.driver, layer.inode) == (str(path), "qcow2", path.stat().st_ino)
    assert (layer.size, layer.modified_ns) == (None, None)


def test_the_definition_is_the_command_line(tmp_path: Path) -> None:
    inventory = look(*bare.disk("one", bare.image(tmp_path / "it's one.qcow2", "5M"), "qcow2"))
    words = shlex.split(inventory.definition)
    assert words[0].endswith("qemu-system-x86_64")
    assert f"driver=file,filename={tmp_path}/it's one.qcow2,node-name=file-one" in words


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("-drive if=none,id=drv,file=IMAGE -device virtio-blk-pci,drive=drv,id=dev,serial=ser", "dev"),
        ("-drive if=none,id=drv,file=IMAGE -device virtio-blk-pci,drive=drv,serial=ser", "drv"),
        ("-drive if=virtio,file=IMAGE", "virtio0"),
        ("-drive if=ide,file=IMAGE", "ide0-hd0"),
        ("-hda IMAGE", "ide0-hd0"),
        ("-blockdev qcow2,file.driver=file,file.filename=IMAGE,node-name=nod -device virtio-blk-pci,drive=nod", "nod"),
        ("-drive if=none,id=drv,file=IMAGE -device nvme,drive=drv,serial=ser,id=fast", "fast"),
        ("-drive if=none,id=drv,file=IMAGE -device nvme,drive=drv,serial=ser", "drv"),
        ("-drive if=none,id=d,file=IMAGE -device ahci,id=sata -device ide-hd,bus=sata.0,drive=d,id=i", "i"),
    ],
)
def test_names_are_what_the_owner_chose(tmp_path: Path, arguments: str, name: str) -> None:
    path = bare.image(tmp_path / "image.qcow2", "5M")
    words = [word.replace("IMAGE", str(path)) for word in arguments.split()]
    disk = only(look(*words))
    assert (disk.name, disk.size, disk.format) == (name, 5 << 20, "qcow2")
    assert disk.layers[0].path == str(path)


def test_names_are_unique_and_stable(tmp_path: Path) -> None:
    """A device's id, a drive's id and a node's name may all be the same."""
    words = []
    for number, (drive, device) in enumerate(
        [
            ("node-name=one", "drive=one"),
            ("node-name=two", "drive=two,id=one"),
            ("node-name=one-2", "drive=one-2"),
        ]
    ):
        path = bare.image(tmp_path / str(number), f"{number + 1}M", "raw")
        words += ["-blockdev", f"driver=raw,file.driver=file,file.filename={path},{drive}"]
        words += ["-device", f"virtio-blk-pci,{device}"]
    first, second = look(*words), look(*words)
    assert {disk.name for disk in first.disks} == {"one", "one-2", "one-2-2"}
    assert first.disks == second.disks


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    plain = bare.image(tmp_path / "plain", "1M", "raw")
    cd, ro, skipped = (bare.image(tmp_path / name, "1M", "raw") for name in ("cd", "ro", "skipped"))
    arguments = [
        *bare.disk("plain", plain, "raw"),
        *bare.disk("skipped", skipped, "raw"),
        *("-drive", f"if=none,id=cd,media=cdrom,file={cd},format=raw", "-device", "ide-cd,drive=cd,id=dvd"),
        *("-drive", "if=none,id=none,media=cdrom", "-device", "ide-cd,drive=none,id=tray"),
        *("-drive", f"if=none,id=ro,file={ro},format=raw,readonly=on", "-device", "virtio-blk-pci,drive=ro,id=locked"),
        *("-device", "isa-fdc,id=fdc", "-device", "floppy,bus=fdc.0,id=floppy"),
    ]
    inventory = look(*arguments, excluded=["dev-skipped"])
    assert [disk.name for disk in inventory.disks] == ["dev-plain"]
    left = reasons(inventory)
    assert left["dev-skipped"] == "excluded"
    assert "removable" in left["dvd"]
    assert left["tray"] == "no medium"
    assert left["locked"] == "read-only"
    assert left["floppy"] == "no medium"


@pytest.mark.parametrize("style", ["drive", "blockdev"])
def test_firmware_is_no_disk_and_its_variables_are_kept(tmp_path: Path, style: str) -> None:
    code, variables = tmp_path / "code.fd", tmp_path / "vars.fd"
    code.write_bytes(bytes(1 << 20))
    variables.write_bytes(bytes(1 << 18))
    if style == "drive":
        flash = ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        flash += ["-drive", f"if=pflash,format=raw,file={variables}"]
    else:
        flash = ["-blockdev", f"driver=raw,node-name=c,read-only=on,file.driver=file,file.filename={code}"]
        flash += ["-blockdev", f"driver=raw,node-name=v,file.driver=file,file.filename={variables}"]
        flash += ["-M", "pc,pflash0=c,pflash1=v"]
    inventory = look(*flash, *bare.disk("one", bare.image(tmp_path / "one", "1M", "raw"), "raw"))
    assert [disk.name for disk in inventory.disks] == ["dev-one"]
    assert inventory.files == (("uefi-variables", variables),)
    assert not any("flash" in left.name for left in inventory.left_out)


def test_a_backing_chain_is_told_down_to_its_end(tmp_path: Path) -> None:
    base = bare.image(tmp_path / "base.raw", "4M", "raw")
    middle = bare.image(tmp_path / "middle.qcow2", "4M", "qcow2", "-b", str(base), "-F", "raw")
    top = bare.image(tmp_path / "top.qcow2", "4M", "qcow2", "-b", str(middle), "-F", "qcow2")
    disk = only(look("-drive", f"if=none,id=d,file={top}", "-device", "virtio-blk-pci,drive=d"))
    assert [(layer.path, layer.driver) for layer in disk.layers] == [
        (str(top), "qcow2"),
        (str(middle), "qcow2"),
        (str(base), "raw"),
    ]
    assert [layer.size for layer in disk.layers] == [None, middle.stat().st_size, base.stat().st_size]
    assert disk.layers[1].modified_ns == middle.stat().st_mtime_ns


def test_formats_without_bitmaps_of_their_own(tmp_path: Path) -> None:
    old = bare.image(tmp_path / "old", "1M", "qcow2", "-o", "compat=0.10")
    raw = bare.image(tmp_path / "raw", "1M", "raw")
    vmdk = bare.image(tmp_path / "vmdk", "1M", "vmdk")
    with (
        bare.running(
            *bare.disk("old", old, "qcow2"), *bare.disk("raw", raw, "raw"), *bare.disk("vmdk", vmdk, "vmdk")
        ) as vm,
        vm.machine() as machine,
    ):
        disks = machine.inventory().disks
        assert [(disk.name, disk.persistent) for disk in disks] == [
            ("dev-old", False),
            ("dev-raw", False),
            ("dev-vmdk", False),
        ]
        machine.transact([Start(disk.name, "a") for disk in disks])
        vm.write("dev-vmdk", 65536, 512, 1)
        assert machine.changed({"dev-vmdk": ["a"]})["dev-vmdk"] == Blocks([1])


@pytest.mark.parametrize("size", [1000, 512 * 129, 65536 * 3 + 1, (1 << 20) - 1])
def test_odd_sizes_are_those_that_the_guest_sees(tmp_path: Path, size: int) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"\x01" * size)
    seen = -(-size // 512) * 512
    with bare.running(*bare.disk("odd", path, "raw")) as vm, vm.machine() as machine:
        assert only(machine.inventory()).size == seen
        machine.transact([Start("dev-odd", "a")])
        vm.write("dev-odd", seen - 512, 512, 7)
        assert machine.changed({"dev-odd": ["a"]})["dev-odd"] == Blocks([(seen - 1) // 65536])
        content = b"\1" * (seen - 512) + b"\7" * 512
        with machine.live(["dev-odd"]) as readers:
            assert readers["dev-odd"].size == seen
            assert points.content(readers["dev-odd"], 0, seen) == content
        with machine.take(PointRequest((), (), {}, freeze=False)) as point:
            vm.write("dev-odd", seen - 512, 512, 8)
            assert points.content(point.reader("dev-odd"), 0, seen) == content
            point.keep("dev-odd", Blocks([(seen - 1) // 65536]))
            assert points.content(point.reader("dev-odd"), seen - 512, 512) == b"\7" * 512
            point.release()


def test_bitmaps_below_a_temporary_overlay_are_not_believed(tmp_path: Path) -> None:
    path = bare.image(tmp_path / "image.qcow2", "4M")
    subprocess.run(["qemu-img", "bitmap", "--add", str(path), "a"], check=True)
    arguments = ["-drive", f"if=none,id=d,file={path}", "-device", "virtio-blk-pci,drive=d,id=dev"]
    with bare.running("-snapshot", *arguments) as vm, vm.machine() as machine:
        (found,) = machine.bitmaps()["dev"]
        assert (found.name, found.recording, found.believed) == ("a", True, False)
    with bare.running(*arguments) as vm, vm.machine() as machine:
        (found,) = machine.bitmaps()["dev"]
        assert (found.name, found.recording, found.believed) == ("a", True, True)


def test_bitmaps_sink_below_an_external_snapshot(tmp_path: Path) -> None:
    path = bare.image(tmp_path / "image.qcow2", "4M")
    with bare.running(*bare.disk("one", path, "qcow2")) as vm, vm.machine() as machine:
        machine.transact([Start("dev-one", "a")])
        overlay = str(tmp_path / "overlay.qcow2")
        vm.qmp("blockdev-snapshot-sync", node_name="one", snapshot_file=overlay, snapshot_node_name="top")
        (found,) = machine.bitmaps()["dev-one"]
        assert not found.believed
        disk = only(machine.inventory())
        assert [layer.path for layer in disk.layers] == [overlay, str(path)]
        # QEMU keeps the layer below read-only. What is there stays until the overlay is committed.
        with pytest.raises(errors.HeadstartError, match=r"readonly|no write access"):
            machine.transact([Remove("dev-one", "a")])
        vm.write("dev-one", 65536, 512, 1)
        vm.qmp("block-commit", device="top", job_id="commit")
        vm.wait_event("BLOCK_JOB_READY")
        vm.qmp("job-complete", id="commit")
        vm.wait_event("BLOCK_JOB_COMPLETED")
        (found,) = machine.bitmaps()["dev-one"]
        assert (found.recording, found.believed) == (True, True)
        assert machine.changed({"dev-one": ["a"]}) == {"dev-one": Blocks([1])}


def test_bitmaps_of_another_granularity_are_not_believed(tmp_path: Path) -> None:
    path = bare.image(tmp_path / "image.qcow2", "4M")
    with bare.running(*bare.disk("one", path, "qcow2")) as vm, vm.machine() as machine:
        vm.qmp("block-dirty-bitmap-add", node="one", name="theirs", granularity=4096)
        (found,) = machine.bitmaps()["dev-one"]
        assert (found.name, found.believed, found.persistent) == ("theirs", False, False)


def test_a_device_that_comes_back_in_an_iothread_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    """This QEMU aborts when an NBD client leaves a disk that an iothread serves."""
    path = bare.image(tmp_path / "one.raw", "4M", "raw")
    node = ["-blockdev", f"driver=raw,node-name=one,file.driver=file,file.filename={path}"]
    scsi = ["-device", "virtio-scsi-pci,id=plain", "-object", "iothread,id=thread"]
    scsi += ["-device", "virtio-scsi-pci,id=threaded,iothread=thread"]
    device = ["-device", "scsi-hd,bus=plain.0,drive=one,id=dev-one"]
    with bare.running(*node, *scsi, *device) as vm, vm.machine() as machine:
        assert not only(machine.inventory()).unreadable
        vm.qmp("device_del", id="dev-one")
        vm.wait_event("DEVICE_DELETED", device="dev-one")
        vm.qmp("device_add", driver="scsi-hd", bus="threaded.0", drive="one", id="dev-one")
        with machine.live(["dev-one"]) as readers:
            assert readers["dev-one"].uri == "", "a raw image is read as a file"


def test_what_is_in_an_iothread_and_no_raw_file_is_not_read(tmp_path: Path) -> None:
    """Nor a part of a raw file, which QEMU was given with an offset."""
    whole, part = bare.image(tmp_path / "one.qcow2", "4M"), bare.image(tmp_path / "two.raw", "4M", "raw")
    thread = ["-object", "iothread,id=thread"]
    one = ["-blockdev", f"driver=qcow2,node-name=one,file.driver=file,file.filename={whole}"]
    two = ["-blockdev", f"driver=raw,node-name=two,offset=1048576,size=2097152,file.driver=file,file.filename={part}"]
    devices = [word for name in ("one", "two")
               for word in ("-device", f"virtio-blk-pci,drive={name},id=dev-{name},iothread=thread")]  # fmt: skip
    with bare.running(*one, *two, *thread, *devices) as vm, vm.machine() as machine:
        assert all(disk.unreadable for disk in machine.inventory().disks)
        with machine.live(["dev-one", "dev-two"]) as readers:
            assert not readers
