"""A disk as a sparse raw file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from headstart.extents import Extent
from headstart.restore.partfile import PartFile
from headstart.restore.present import Before
from headstart.store.contract import Data


class RawFile:
    """A :class:`target.Target`: a new file, in which zeroes are holes."""

    def __init__(self, place: Path, size: int, purpose: str = "") -> None:
        """``purpose``: see ``PartFile``."""
        self.place = place
        self.size = size
        self._part = PartFile(place, size, purpose)
        self.notes = self._part.notes
        self.before = Before(self._part.descriptor) if self._part.resumed else None

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        self._part.write(start, pieces)

    def zero(self, extent: Extent) -> None:
        """A new file has nothing but holes, and one that is gone on with has nothing but what belongs there."""

    def finish(self) -> None:
        self._part.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._part.__exit__(*details)
