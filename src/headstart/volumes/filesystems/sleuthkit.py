"""The Sleuth Kit reading from a ``Source``."""

from __future__ import annotations

import pytsk3

from headstart.volumes.filesystem import Source


class SourceImage(pytsk3.Img_Info):  # type: ignore[misc]
    """What the library takes for a disk."""

    def __init__(self, source: Source) -> None:
        self._source = source
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def close(self) -> None:
        """Nothing was opened."""

    def read(self, start: int, length: int) -> bytes:
        return self._source.read(start, length)

    def get_size(self) -> int:
        return self._source.size
