"""A disk on a block device."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from headstart import errors, extents, units
from headstart.extents import Extent
from headstart.restore import imagelock, writing
from headstart.restore.present import Before
from headstart.store.contract import Data

#: linux/fs.h: zero a range (start, length in bytes) and let the device do it if it can.
_BLKZEROOUT = 0x127F
_NOT_DONE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EREMOTEIO}
#: Bytes zeroed in one go: the user can interrupt in between.
_ZERO_STEP = units.GIB
_ZEROES = bytes(units.MIB)
_DEV = Path("/dev")


def is_device(place: Path) -> bool:
    """Whether it exists and is a block device, by whatever link."""
    try:
        return stat.S_ISBLK(place.stat().st_mode)
    except OSError:
        return False


def refuse_misspelt(place: Path) -> None:
    """A name below ``/dev`` that no device has: a file of that name would lie in memory, and be gone with it.
    Raises ``TargetRefused``."""
    found = Path(os.path.realpath(place))
    if is_device(found) or _DEV not in found.parents:
        return
    folder = next(each for each in found.parents if each.exists())
    # Others are mounted below it, such as /dev/shm, and hold files.
    if folder.stat().st_dev == _DEV.stat().st_dev:
        raise errors.TargetRefused(
            f"There is no block device {place}. Name one that there is, or a file that is not below {_DEV}.",
            target=str(place),
        )


class BlockDevice:
    """A :class:`target.Target`: the whole device. What lies behind the disk's end is zeroed, too: it would be taken
    for a part of the disk (a partition table's copy at the end, say)."""

    def __init__(self, place: Path, size: int) -> None:
        """``size`` of the disk. Refuses a device that is smaller, or used by the system or by QEMU."""
        self.place = place
        self.notes: tuple[str, ...] = ()
        self.before: Before | None = None
        self._file = _open(place)
        try:
            self.size = os.lseek(self._file, 0, os.SEEK_END)
            if self.size < size:
                raise errors.TargetRefused(
                    f"{place} has {self.size} bytes, and the disk needs {size}. Name a larger device.",
                    target=str(place),
                    size=self.size,
                    needed=size,
                )
            if not imagelock.hold(self._file):
                raise errors.TargetRefused(
                    f"{place} is in use by QEMU. Shut the VM down that has it, or name another device.",
                    target=str(place),
                )
        except BaseException:
            os.close(self._file)
            raise
        self._direct = writing.Direct(self._file)
        self.before = Before(self._file, likely=False)

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        with writing.translated(self.place):
            self._direct.write(start, pieces)

    def zero(self, extent: Extent) -> None:
        with writing.translated(self.place):
            for part in extents.split(extent, _ZERO_STEP):
                try:
                    fcntl.ioctl(self._file, _BLKZEROOUT, struct.pack("=QQ", part.start, part.length))
                except OSError as error:
                    if error.errno not in _NOT_DONE:
                        raise
                    self._write_zeroes(part)

    def _write_zeroes(self, extent: Extent) -> None:
        for part in extents.split(extent, len(_ZEROES)):
            self._direct.write(part.start, [_ZEROES[: part.length]])

    def finish(self) -> None:
        with writing.translated(self.place):
            os.fsync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._direct.close()
        os.close(self._file)


def _open(place: Path) -> int:
    """``O_EXCL`` on a block device: nobody has it mounted, as swap, or in a RAID or volume group (open(2))."""
    with writing.translated(place):
        try:
            return os.open(place, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise errors.TargetRefused(
                f"{place} is in use: it or a part of it is mounted, or belongs to a RAID or a volume group. "
                "Take it out of use, or name another device.",
                target=str(place),
            ) from None
