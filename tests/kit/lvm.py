"""LVM's program for the test guest, on a disk of its own: in the image it would make every boot slower."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.kit import disks, guest, packages
from tests.kit.control import Control

#: The program, and those of its libraries that a Debian host need not have.
PACKAGES = (
    *("lvm2", "libdevmapper1.02.1", "libdevmapper-event1.02.1", "libaio1", "libblkid1", "libedit2", "libbsd0"),
    *("libmd0", "libtinfo6"),
)
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
MOUNT_POINT = "/lvm"
#: Without udev, and without a list of devices that may be used.
_CONFIG = "activation { udev_sync=0 udev_rules=0 verify_udev_operations=1 } devices { use_devicesfile=0 }"


def disk(folder: Path) -> disks.Disk:
    """To be given to a VM and left out of its backups."""
    tree = folder / "lvm-tree"
    tree.mkdir()
    unpacked = [packages.unpacked(name, guest.CACHE) for name in PACKAGES]
    shutil.copy(unpacked[0] / "sbin/lvm", tree / "lvm")
    places = [str(path / part) for path in unpacked for part in _LIBRARIES]
    listing = subprocess.run(
        ["ldd", tree / "lvm"], env={"LD_LIBRARY_PATH": ":".join(places)}, check=True, capture_output=True, text=True
    )
    for library in re.findall(r"=> (/\S+)", listing.stdout):
        shutil.copy(library, tree / Path(library).name)
    return disks.Disk(disks.make_ext4(folder / "lvm.raw", 48 * disks.MIB, files=tree), "raw", "lvm", read_only=True)


class Lvm:
    """Commands of LVM in a guest that has the disk."""

    def __init__(self, control: Control, device: str) -> None:
        self._control = control
        control.mount(device + "1", MOUNT_POINT, options="ro")

    def run(self, *words: str) -> str:
        command = (
            f"LD_LIBRARY_PATH={MOUNT_POINT} {MOUNT_POINT}/lvm {words[0]} --config '{_CONFIG}' {' '.join(words[1:])}"
        )
        return self._control.run(command).output
