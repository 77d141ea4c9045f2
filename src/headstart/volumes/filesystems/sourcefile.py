"""A ``Source`` as a file, for libraries that want one; and what lies in pieces of it."""

from __future__ import annotations

import io
from collections.abc import Iterable

from headstart.volumes.filesystem import Malformed, Run, Source


class SourceFile(io.RawIOBase):
    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._source.size - self._position if size is None or size < 0 else size
        found = self._source.read(self._position, wanted) if wanted > 0 else b""
        self._position += len(found)
        return found


def read_runs(source: Source, runs: Iterable[Run], start: int, end: int) -> bytes:
    """A part of a file that lies there. Raises ``Malformed``."""
    content = bytearray(max(0, end - start))
    for run in runs:
        first, last = max(start, run.start), min(end, run.start + run.length)
        if run.place is not None and first < last:
            found = source.read(run.place + first - run.start, last - first)
            if len(found) < last - first:
                raise Malformed("a file that lies outside of its volume")
            content[first - start : last - start] = found
    return bytes(content)
