"""Reading a disk from a raw file or block device; a ``Reader`` (see headstart.reading)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart import errors, extents
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece


class FileReader:
    """A context manager; every piece has memory of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.lseek(self._file, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        return self._size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        for extent in wanted:
            for piece in extents.split(extent, PIECE_SIZE):
                yield Piece(piece, memoryview(self._pread(piece)))

    def _pread(self, extent: Extent) -> bytes:
        data = os.pread(self._file, extent.length, extent.start)
        while len(data) < extent.length:
            more = os.pread(self._file, extent.length - len(data), extent.start + len(data))
            if not more:
                raise errors.HeadstartError(f"{self._path} ends at {extent.start + len(data)}.")
            data += more
        return data

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._file)
