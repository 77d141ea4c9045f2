"""Device nodes, also where nothing in the guest makes them (no udev, no devtmpfs)."""

import os
import stat

#: Where missing nodes are made.
_OWN = "/dev"


def block(name: str) -> str:
    """The path of a block device that sysfs calls ``name``. Raises ``OSError``."""
    # Slashes of a name are exclamation marks in sysfs (cciss!c0d0).
    return _node("/dev/" + name.replace("!", "/"), "/sys/class/block/%s/dev" % name, stat.S_IFBLK)


def character(path: str, numbers: str) -> str:
    """``path``; made if it is missing, with the numbers that the sysfs file ``numbers`` holds."""
    return _node(path, numbers, stat.S_IFCHR)


def _node(path: str, numbers: str, kind: int) -> str:
    with open(numbers) as file:
        major, minor = file.read().split(":")
    device = os.makedev(int(major), int(minor))
    try:
        found = os.stat(path)
        if stat.S_IFMT(found.st_mode) == kind and found.st_rdev == device:
            return path
        path = "%s/headstart-%s-%s" % (_OWN, major, minor.strip())
    except FileNotFoundError:
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.makedirs(folder)
    try:
        os.mknod(path, 0o600 | kind, device)
    except FileExistsError:
        pass
    return path
