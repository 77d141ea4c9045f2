"""Files of a real guest's, read from a backup, are what the guest itself says: on a partition, and on LVM over two
disks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.repository import snapshot
from headstart.restore.files import extraction, guestpath
from headstart.restore.files.contents import Contents
from headstart.restore.files.extraction import Copied
from tests.e2e.rig import Rig
from tests.kit import disks, filetrees, lvm
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
#: Mounted by the guest, and as the product names them.
PLACES = {
    "/mnt": "dev-system/1",
    "/striped": "my-group/striped",
    "/joined": "my-group/joi-ned",
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("files")
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", 96 * MIB, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_empty(folder / "one.qcow2", 64 * MIB, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_empty(folder / "two.raw", 64 * MIB), "raw", "two", interface="virtio-scsi"),
        lvm.disk(folder),
    )
    with Vm(chosen) as vm:
        tools = lvm.Lvm(vm.guest, vm.device("lvm"))
        devices = (vm.device("one"), vm.device("two"))
        tools.run("pvcreate", *devices)
        tools.run("vgcreate", "my-group", *devices)
        tools.run("lvcreate", "--zero", "n", "--name", "striped", "--stripes", "2", "--size", "48M", "my-group")
        tools.run("lvcreate", "--zero", "n", "--name", "joi-ned", "--extents", "100%FREE", "my-group")
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        for place, name in (("/striped", "my--group-striped"), ("/joined", "my--group-joi--ned")):
            vm.guest.run(f"mke2fs /dev/mapper/{name}")
            vm.guest.mount(f"/dev/mapper/{name}", place)
        yield Rig(folder / "rig", vm, qga=False, excluded=("dev-lvm",))


def test_files_are_what_the_guest_says(rig: Rig, tmp_path: Path) -> None:
    told: dict[str, Any] = {}
    for place in PLACES:
        script = f"from pathlib import Path; from inguest import filetree; filetree.fill(Path('{place}'))"
        rig.vm.guest.run(f'python3 -I -S -c "{script}"', timeout=60)
        report = f"import json; from inguest import filetree; print(json.dumps(filetree.describe('{place}')))"
        told[place] = json.loads(rig.vm.guest.run(f'python3 -I -S -c "{report}"', timeout=60).output)
    rig.vm.guest.run("sync")
    made = rig.backup()
    copied = Copied()
    with rig.repo() as repo, Contents(repo, snapshot.load(repo, made.snapshot)) as contents:
        assert {each.name for each in contents.volumes} >= set(PLACES.values())
        for place, volume in PLACES.items():
            name = place.removeprefix("/")
            tree, top = contents.find(guestpath.GuestPath("", volume, "/"))
            extraction.copy(tree, top, tmp_path, name, copied, lambda _: None)
            assert filetrees.describe(tmp_path / name) == told[place], place
        assert any("was not replayed" in note for note in contents.notes), "it was in use"
    assert not copied.troubles.count and not copied.lacking
