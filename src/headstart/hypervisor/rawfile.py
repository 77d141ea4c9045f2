"""Reading a running disk from outside as the raw file or block device that it is.

Nothing of the hypervisor's is asked or held up. What QEMU has reported as written is seen by every reader of this
machine: with its cache, because both use the kernel's; without, because the kernel throws away what it had of those
pages before a direct write is reported (Linux, ``generic_file_direct_write``).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from headstart.extents import Extent
from headstart.hypervisor.inventory import Disk
from headstart.wire.files import FileReader


class RawReader(FileReader):
    """A raw image: ``headstart.hypervisor.contract.LiveReader``. A context manager."""

    #: A file, which nobody serves.
    uri = ""

    def allocated(self) -> Iterator[Extent]:
        """By the file system's own map, where there is one (lseek(2), SEEK_DATA)."""
        position = 0
        try:
            while position < self.size:
                start = os.lseek(self._file, position, os.SEEK_DATA)
                position = os.lseek(self._file, start, os.SEEK_HOLE)
                yield Extent(start, min(position, self.size) - start)
        except OSError as error:
            # No data up to the end; a block device knows no holes at all.
            if error.errno != errno.ENXIO:
                yield Extent(0, self.size)


@contextlib.contextmanager
def raw_file(disk: Disk) -> Iterator[RawReader | None]:
    """The disk's file, if it is raw, has no backing file, and can be read here."""
    if disk.format != "raw" or len(disk.layers) != 1:
        yield None
        return
    try:
        reader = RawReader(Path(disk.layers[0].path))
    except OSError:
        yield None
        return
    with reader:
        # A part of a larger file, or one that was resized a moment ago.
        yield reader if reader.size == disk.size else None
