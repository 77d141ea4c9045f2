"""Reading a block device past the guest's cache.

A cached read of a disk shows what the disk held when its pages were read, not what file systems have
written since; O_DIRECT shows what is on the disk now.
"""

import fcntl
import io
import mmap
import os
import struct
import time
from typing import Tuple

from headstart.agentd import usage

#: Linux, include/uapi/linux/fs.h.
BLKSSZGET = 0x1268
BLKGETSIZE64 = 0x80081272
#: The longest read; also the memory that a reader takes.
LONGEST = 1 << 16


class DiskReader:
    """An open device, by ``path`` and the kernel's ``name``. A context manager."""

    def __init__(self, path: str, name: str = "") -> None:
        """Raises ``OSError``."""
        self._name = name or os.path.basename(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        self._file = io.FileIO(descriptor, "rb")
        try:
            self.size, self.sector = self._measured(descriptor)
        except BaseException:
            self._file.close()
            raise
        # Page-aligned, as O_DIRECT wants it. There is no preadv in the oldest Python that this runs on.
        self._memory = mmap.mmap(-1, LONGEST + 2 * mmap.PAGESIZE)
        self._view = memoryview(self._memory)

    def _measured(self, descriptor: int) -> Tuple[int, int]:
        """Bytes of the device, and of its sectors."""
        size = struct.unpack("=Q", fcntl.ioctl(descriptor, BLKGETSIZE64, bytes(8)))[0]
        return size, struct.unpack("=i", fcntl.ioctl(descriptor, BLKSSZGET, bytes(4)))[0]

    def read(self, start: int, length: int) -> memoryview:
        """At most ``LONGEST`` bytes; valid until the next call. Raises ``OSError``, also beyond the end."""
        if not 0 <= start <= start + length <= self.size:
            raise OSError("the device ends at %d" % self.size)
        low = start // self.sector * self.sector
        high = min(-(-(start + length) // self.sector) * self.sector, self.size)
        self._file.seek(low)
        done, begun = 0, time.monotonic()
        try:
            while done < high - low:
                count = self._file.readinto(self._view[done : high - low])
                if not count:
                    raise OSError("the device ends at %d" % (low + done))
                done += count
        finally:
            usage.OWN.read(self._name, done, begun)
        return self._view[start - low : start - low + length]

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        self._view.release()

    def __enter__(self) -> "DiskReader":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
