"""Device-mapper ``era`` and ``snapshot`` for the test guest, on a disk of their own: in the image they would make every
boot slower."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.kit import disks, guest, packages
from tests.kit.control import Control, Ran

#: Who reads what an era target has recorded, and those of its libraries that a Debian host need not have.
PACKAGES = ("thin-provisioning-tools", "dmsetup", "libdevmapper1.02.1", "libaio1", "libexpat1")
_PROGRAMS = ("usr/sbin/pdata_tools", "sbin/dmsetup")
MODULES = ("dm-era", "dm-snapshot")
MOUNT_POINT = "/era"
AGENTD = "python3 -I -S /usr/lib/headstart-agentd"
CONFIGURATION = "/etc/headstart/filters"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_PROGRAM = f'#!/bin/sh\nLD_LIBRARY_PATH={MOUNT_POINT} exec {MOUNT_POINT}/pdata_tools era_invalidate "$@"\n'


def disk(folder: Path) -> disks.Disk:
    """To be given to a VM."""
    tree = folder / "era-tree"
    tree.mkdir()
    unpacked = [packages.unpacked(name, guest.CACHE) for name in PACKAGES]
    programs = [path / name for path, name in zip(unpacked, _PROGRAMS, strict=False)]
    for program in programs:
        shutil.copy(program, tree / program.name)
    places = [str(path / part) for path in unpacked for part in _LIBRARIES]
    listing = subprocess.run(
        ["ldd", *programs], env={"LD_LIBRARY_PATH": ":".join(places)}, check=True, capture_output=True, text=True
    )
    for library in re.findall(r"=> (/\S+)", listing.stdout):
        shutil.copy(library, tree / Path(library).name)
    guest.add_modules(tree, MODULES)
    (tree / "era_invalidate").write_text(_PROGRAM)
    (tree / "era_invalidate").chmod(0o755)
    return disks.Disk(disks.make_ext4(folder / "era.raw", 48 * disks.MIB, files=tree), "raw", "era", read_only=True)


class Filters:
    """The command ``filter`` of the agent, in a guest that has the disk. To be made after every boot."""

    def __init__(self, control: Control, device: str) -> None:
        self._control = control
        control.mount(device + "1", MOUNT_POINT, options="ro")
        control.run(
            f"for each in $(cat {MOUNT_POINT}/order); do insmod {MOUNT_POINT}/$each 2>/dev/null; done;"
            f" ln -s {MOUNT_POINT}/era_invalidate /usr/sbin/era_invalidate"
        )

    def run(self, *words: str, check: bool = True) -> Ran:
        return self._control.run(f"{AGENTD} filter {' '.join(words)}", check=check)

    def configure(self, *lines: str) -> None:
        """As the configuration on a disk would be there at boot: the guest's root is gone with each."""
        text = "\\n".join(lines)
        self._control.run(f"mkdir -p /etc/headstart && printf '{text}\\n' >{CONFIGURATION}")
