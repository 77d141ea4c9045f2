"""The spool: the residue on a local disk, so that the window does not wait for the store.

One sparse file per disk, the residue at its own offsets, durable before the point in time is let go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from headstart import errors
from headstart.extents import Extent
from headstart.reading import Reader
from headstart.wire.files import FileReader


class Spool:
    """The directory of one completion."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> None:
        """Begin anew: what an earlier completion left is of no use."""
        self.remove()
        try:
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise errors.Usage(f"The spool {self.directory} cannot be made: {error.strerror}.") from error

    def fill(
        self,
        disk: str,
        reader: Reader,
        wanted: Iterable[Extent],
        read: Callable[[Extent], None] = lambda extent: None,
    ) -> int:
        """Copy ``wanted`` from the point in time; durable on return. Returns the bytes read.

        ``read`` is told of each extent that is safe in the file."""
        total = 0
        try:
            with self._path(disk).open("xb") as file:
                os.truncate(file.fileno(), reader.size)
                for piece in reader.read(wanted):
                    if piece.data is not None:
                        _write(file.fileno(), piece.data, piece.extent.start)
                    piece.release()
                    total += piece.extent.length
                    read(piece.extent)
                os.fdatasync(file.fileno())
        except OSError as error:
            raise errors.NoSpace(
                f"The residue cannot be written to {self.directory}: {error.strerror}. Make room there, or name"
                " another --scratch. The draft is kept."
            ) from error
        return total

    def keep_file(self, name: str, content: bytes) -> None:
        with (self.directory / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def read_file(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def seal(self) -> None:
        """The names of the files are durable too."""
        for directory in (self.directory, self.directory.parent):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def exists(self) -> bool:
        return self.directory.is_dir()

    def reader(self, disk: str) -> FileReader:
        """A context manager."""
        return FileReader(self._path(disk))

    def _path(self, disk: str) -> Path:
        return self.directory / f"{disk}.disk"

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
