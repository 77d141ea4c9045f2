"""Whether somebody has written to an image meanwhile, or has it open for that.

QEMU locks byte ``100 + n`` of an image for each permission ``n`` that it uses (block/file-posix.c,
``RAW_LOCK_PERM_BASE``); 1 is writing. A block device has no time of its last change, but counts what is written to it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from headstart import errors

_WRITING = 101
#: ``struct flock``: type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi4x")
#: Field of /sys/dev/block/MAJOR:MINOR/stat (Linux, Documentation/block/stat.rst): sectors written.
_SECTORS_WRITTEN = 6
#: Times of files are as coarse as the kernel's clock tick: what is written within the same one has the same time.
_TICK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Witness:
    """What a file was at a moment. ``writer``: somebody had it open for writing, and told so by QEMU's locks."""

    path: str
    facts: tuple[int, ...]
    device: bool
    writer: bool


def look(path: str) -> Witness:
    """Opened anew each time: that is when network file systems look again. Raises ``Unreachable``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.Unreachable(f"The image {path} cannot be opened: {error.strerror}.") from error
    try:
        seen = os.fstat(descriptor)
        device = stat.S_ISBLK(seen.st_mode)
        facts: tuple[int, ...] = (seen.st_dev, seen.st_ino, seen.st_rdev)
        facts += (_written(seen.st_rdev),) if device else (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        return Witness(path, facts, device, _is_written(descriptor))
    finally:
        os.close(descriptor)


def settle(paths: list[str]) -> None:
    """Let so much time pass that whoever writes from now on is told by the time of the file."""
    newest = max((path.stat().st_ctime for path in map(Path, paths) if path.exists()), default=0.0)
    if abs(time.time() - newest) < _TICK_SECONDS:
        time.sleep(_TICK_SECONDS)


def _is_written(descriptor: int) -> bool:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _WRITING, 1, 0)
    try:
        told = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError:
        # A file system without locks: times have to do.
        return False
    return bool(_FLOCK.unpack(told)[0] != fcntl.F_UNLCK)


def _written(device: int) -> int:
    try:
        told = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
        return int(told.split()[_SECTORS_WRITTEN])
    except (OSError, IndexError, ValueError):
        return -1
