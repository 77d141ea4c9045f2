"""The spool: the residue on a local disk, so that the window does not wait for the store.

One sparse file per disk, the residue at its own offsets, durable before the point in time is let go.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from headstart import durable, errors
from headstart.extents import Extent
from headstart.reading import Piece, Reader
from headstart.wire.files import FileReader


class Spool:
    """The residue of one completion of a VM: a directory of its own, so that none is taken for another's."""

    def __init__(self, of_vm: Path, completion: str) -> None:
        self._of_vm = of_vm
        self.directory = of_vm / completion
        self._syncs: list[_Sync] = []

    def create(self) -> None:
        """Begin anew: what earlier completions of the VM left is of no use."""
        self.remove()
        try:
            self.directory.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise errors.Usage(f"The spool {self.directory} cannot be made: {error.strerror}.") from error

    def fill(
        self,
        disk: str,
        reader: Reader,
        wanted: Iterable[Extent],
        read: Callable[[Extent], None] = lambda extent: None,
    ) -> int:
        """Copy ``wanted`` from the point in time; durable after ``seal``. Returns the bytes read.

        ``read`` is told of each extent that is in the file."""
        total = 0
        try:
            with self._path(disk).open("xb") as file:
                os.truncate(file.fileno(), reader.size)
                for piece in reader.read(wanted):
                    _write(file.fileno(), piece)
                    total += piece.extent.length
                    read(piece.extent)
                self._syncs.append(_Sync(file.fileno()))
        except OSError as error:
            raise self._unwritten(error) from error
        return total

    def _unwritten(self, error: OSError) -> errors.NoSpace:
        return errors.NoSpace(
            f"The residue cannot be written to {self.directory}: {error.strerror}. Make room there, or name"
            " another --scratch. The draft is kept."
        )

    def keep_file(self, name: str, content: bytes) -> None:
        """Durable after ``seal``."""
        try:
            with (self.directory / name).open("xb") as file:
                file.write(content)
                file.flush()
                self._syncs.append(_Sync(file.fileno()))
        except OSError as error:
            raise self._unwritten(error) from error

    def read_file(self, name: str) -> bytes:
        """Raises ``Damaged`` if the file is not there any longer."""
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError as error:
            raise self._lost() from error

    def _lost(self) -> errors.Damaged:
        return errors.Damaged(
            f"The spool {self.directory} of an unfinished backup is gone. The next backup begins anew."
        )

    def seal(self) -> None:
        """Everything is durable: the files, whose syncs began when they were full, and their names."""
        try:
            for sync in self._syncs:
                sync.wait()
        except OSError as error:
            raise self._unwritten(error) from error
        for directory in (self.directory, *self.directory.parents[:3]):
            durable.sync_folder(directory)

    def reader(self, disk: str) -> FileReader:
        """A context manager. Raises ``Damaged`` if the file is not there any longer."""
        try:
            return FileReader(self._path(disk))
        except FileNotFoundError as error:
            raise self._lost() from error

    def _path(self, disk: str) -> Path:
        return self.directory / f"{disk}.disk"

    def remove(self) -> None:
        shutil.rmtree(self._of_vm, ignore_errors=True)


class _Sync:
    """Makes a file durable while others are written. The caller may close it meanwhile."""

    def __init__(self, file: int) -> None:
        # Of the same open file: the kernel tells errors of writing back to those who wrote.
        self._file = os.dup(file)
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="spool-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._failure = error
        finally:
            os.close(self._file)

    def wait(self) -> None:
        """Until it is durable. Raises ``OSError``."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def _write(file: int, piece: Piece) -> None:
    data, offset = piece.data, piece.extent.start
    try:
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written
    finally:
        piece.release()
