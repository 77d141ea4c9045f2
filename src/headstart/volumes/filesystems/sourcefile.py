"""A ``Source`` as a file, for libraries that want one."""

from __future__ import annotations

import io

from headstart.volumes.filesystem import Source


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
