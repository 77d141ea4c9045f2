"""Tables of device-mapper devices, asked of the kernel (Linux, include/uapi/linux/dm-ioctl.h)."""

import fcntl
import os
import struct
from typing import List, NamedTuple

from headstart.agentd import nodes

_CONTROL = "/dev/mapper/control"
_NUMBERS = "/sys/class/misc/device-mapper/dev"
#: struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name,
#: uuid, data.
HEAD = struct.Struct("=3IIIIiIIIQ128s129s7s")
#: struct dm_target_spec: sector_start, length, status, next, target_type.
TARGET = struct.Struct("=QQiI16s")
VERSION = (4, 0, 0)
_TABLE_FLAG = 1 << 4
_BUFFER_FULL = 1 << 8
#: _IOWR(0xfd, 12, struct dm_ioctl)
_TABLE_STATUS = 3 << 30 | HEAD.size << 16 | 0xFD << 8 | 12
_SIZES = (16 << 10, 1 << 20, 16 << 20)
SECTOR = 512


class Target(NamedTuple):
    """A line of a table. ``start`` and ``length`` in bytes."""

    start: int
    length: int
    kind: str
    arguments: List[str]


def table(major: int, minor: int) -> List[Target]:
    """Raises ``OSError``, and ``ValueError`` for an answer that makes no sense."""
    # The kernel's encoding of large device numbers (huge_encode_dev).
    device = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    descriptor = control()
    try:
        for size in _SIZES:
            memory = bytearray(size)
            HEAD.pack_into(memory, 0, *VERSION, size, HEAD.size, 0, 0, _TABLE_FLAG, 0, 0, device, b"", b"", b"")
            fcntl.ioctl(descriptor, _TABLE_STATUS, memory)
            fields = HEAD.unpack_from(memory)
            if not fields[7] & _BUFFER_FULL:
                return targets(bytes(memory), fields[4], fields[5])
    finally:
        os.close(descriptor)
    raise OSError("the table of device %d:%d is too long" % (major, minor))


def control() -> int:
    """A descriptor that takes the kernel's ioctls. Raises ``OSError``."""
    return os.open(nodes.character(_CONTROL, _NUMBERS), os.O_RDWR | os.O_CLOEXEC)


def targets(memory: bytes, begin: int, count: int) -> List[Target]:
    """``count`` lines of a table, the first at ``begin``, each of which tells where the next one is, from there.

    Raises ``ValueError`` where that is outside of ``memory``."""
    found = []
    position = begin
    for _ in range(count):
        if position + TARGET.size > len(memory):
            raise ValueError("a table that goes on beyond its end")
        start, length, _, following, kind = TARGET.unpack_from(memory, position)
        text = memory[position + TARGET.size :].split(b"\0", 1)[0]
        arguments = text.decode("ascii", "replace").split()
        found.append(Target(start * SECTOR, length * SECTOR, kind.rstrip(b"\0").decode("ascii", "replace"), arguments))
        position = begin + following
    return found
