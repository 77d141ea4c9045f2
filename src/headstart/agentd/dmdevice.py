"""Device-mapper devices made, changed and removed, by the kernel's ioctls: there need be no dmsetup in a guest."""

import errno
import fcntl
import os
import struct
import time
from typing import List, Optional, Tuple

from headstart.agentd import devicemapper, nodes
from headstart.agentd.devicemapper import SECTOR, Target

_BLOCK = "/sys/class/block"
_HEAD = devicemapper.HEAD
_TARGET = devicemapper.TARGET
#: Linux, include/uapi/linux/dm-ioctl.h.
_CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TABLE_STATUS, _MESSAGE = 3, 4, 6, 7, 9, 12, 14
_SUSPEND_FLAG, _SUSPENDED = 1 << 1, 1 << 1
#: File systems are frozen by who knows how to thaw them, or not at all.
_SKIP_LOCKFS = 1 << 10
#: libdevmapper's flags for udev: no rules of subsystems, disks, or others.
_HIDDEN = (1 << 1 | 1 << 2 | 1 << 3) << 16
_SIZE = 16 << 10
_ATTEMPTS, _AGAIN_SECONDS = 20, 0.05


def create(name: str, uuid: str, table: List[Target], hidden: bool = True) -> int:
    """A running device; its minor number. Raises ``OSError``."""
    _ask(_CREATE, name=name, uuid=uuid)
    try:
        load(uuid, table)
        resume(uuid, hidden)
    except BaseException:
        remove(uuid)
        raise
    minor = number(uuid)[1]
    _link(name, minor)
    return minor


def prepare(name: str, uuid: str, table: List[Target]) -> None:
    """A device that nobody can use before it is resumed. Raises ``OSError``."""
    _ask(_CREATE, name=name, uuid=uuid)
    try:
        load(uuid, table)
    except BaseException:
        remove(uuid)
        raise


def load(uuid: str, table: List[Target]) -> None:
    data = b""
    for target in table:
        words = " ".join(target.arguments).encode("ascii") + b"\0"
        length = -(-(_TARGET.size + len(words)) // 8) * 8
        head = _TARGET.pack(target.start // SECTOR, target.length // SECTOR, 0, length, target.kind.encode("ascii"))
        data += (head + words).ljust(length, b"\0")
    _ask(_LOAD, uuid=uuid, data=data, count=len(table))


def suspend(uuid: str) -> None:
    """Returns when all writes that were under way are done. Raises ``OSError``."""
    _ask(_SUSPEND, uuid=uuid, flags=_SUSPEND_FLAG | _SKIP_LOCKFS)


def resume(uuid: str, hidden: bool = True) -> None:
    """``hidden``: udev leaves it alone. What lies on it would be found twice."""
    _ask(_SUSPEND, uuid=uuid, event=_HIDDEN if hidden else 0)


def suspended(uuid: str) -> bool:
    return bool(_ask(_STATUS, uuid=uuid)[0] & _SUSPENDED)


def message(uuid: str, words: str) -> None:
    _ask(_MESSAGE, uuid=uuid, data=struct.pack("=Q", 0) + words.encode("ascii") + b"\0")


def status(uuid: str) -> List[Target]:
    """Its targets with what each tells of itself. Raises ``OSError``."""
    _, count, memory = _ask(_TABLE_STATUS, uuid=uuid)
    return devicemapper.targets(memory, _HEAD.size, count)


def remove(uuid: str) -> None:
    """Raises ``OSError``: somebody has it open, and not just for a look."""
    try:
        name = _text("%s/dm-%d/dm/name" % (_BLOCK, number(uuid)[1]))
    except OSError:
        name = ""
    for again in range(_ATTEMPTS):
        try:
            _ask(_REMOVE, uuid=uuid)
            break
        except OSError as error:
            if error.errno != errno.EBUSY or again == _ATTEMPTS - 1:
                raise
            time.sleep(_AGAIN_SECONDS)
    _unlink(name)


def number(uuid: str) -> Tuple[int, int]:
    """Raises ``FileNotFoundError``."""
    found = find(uuid)
    if found is None:
        raise FileNotFoundError("there is no device %s" % uuid)
    major, minor = _text("%s/%s/dev" % (_BLOCK, found)).split(":")
    return int(major), int(minor)


def find(uuid: str) -> Optional[str]:
    """The kernel's name of a device, None if there is none."""
    return next((name for name, each in every() if each == uuid), None)


def every() -> List[Tuple[str, str]]:
    """The kernel's name and the UUID of each device."""
    names = [name for name in os.listdir(_BLOCK) if name.startswith("dm-")] if os.path.isdir(_BLOCK) else []
    return [(name, _text("%s/%s/dm/uuid" % (_BLOCK, name))) for name in sorted(names)]


def _ask(
    command: int, name: str = "", uuid: str = "", flags: int = 0, data: bytes = b"", count: int = 0, event: int = 0
) -> Tuple[int, int, bytes]:
    """Flags, number of targets, memory."""
    size = max(_SIZE, _HEAD.size + len(data))
    memory = bytearray(size)
    # A device is called by its name or its UUID: both only to create it.
    called = name.encode("ascii") if command == _CREATE or not uuid else b""
    _HEAD.pack_into(
        *(memory, 0, *devicemapper.VERSION, size, _HEAD.size, count, 0, flags, event, 0, 0),
        *(called, uuid.encode("ascii"), b""),
    )
    memory[_HEAD.size : _HEAD.size + len(data)] = data
    descriptor = devicemapper.control()
    try:
        fcntl.ioctl(descriptor, 3 << 30 | _HEAD.size << 16 | 0xFD << 8 | command, memory)
    finally:
        os.close(descriptor)
    fields = _HEAD.unpack_from(memory)
    return fields[7], fields[5], bytes(memory)


def _link(name: str, minor: int) -> None:
    """As udev would, where there is none."""
    try:
        os.symlink(os.path.relpath(nodes.block("dm-%d" % minor), "/dev/mapper"), "/dev/mapper/" + name)
    except OSError:
        # It is there already.
        pass


def _unlink(name: str) -> None:
    try:
        if name and os.path.islink("/dev/mapper/" + name):
            os.unlink("/dev/mapper/" + name)
    except OSError:
        pass


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
