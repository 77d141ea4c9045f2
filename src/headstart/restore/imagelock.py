"""The locks by which QEMU and qemu-img tell each other that an image is in use.

QEMU locks bytes from 100 on for what it does with an image, and from 200 on for what it does not let others do
(block/file-posix.c, ``RAW_LOCK_PERM_BASE`` and ``RAW_LOCK_SHARED_BASE``; one byte for each of 64 permissions).
"""

from __future__ import annotations

import fcntl
import os
import struct

_FIRST = 100
_LAST = 263
#: ``struct flock``: type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi4x")


def hold(descriptor: int) -> bool:
    """Lock the image against every use by QEMU for as long as the descriptor is open; False if it is in use now."""
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _FIRST, _LAST - _FIRST + 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):
        return False
    return True
