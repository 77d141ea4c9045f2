"""A file that gets its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from headstart import errors
from headstart.restore import writing

SUFFIX = ".part"
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class PartFile:
    """``place`` in the making, as ``place.part``. A context manager: without ``finish`` the part is removed.

    Raises ``TargetRefused`` if there is something of either name. The file is its owner's alone: disks hold secrets.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._part = place.with_name(place.name + SUFFIX)
        self._finished = False
        refuse_existing(place)
        with writing.translated(place):
            try:
                self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                raise errors.TargetRefused(
                    f"{self._part} exists: another restore is writing it, or one was killed. "
                    "If none is running, remove it.",
                    target=str(self._part),
                ) from None

    def set_size(self, size: int) -> None:
        """All of it is a hole until it is written."""
        with writing.translated(self.place):
            os.truncate(self._file, size)

    def write(self, start: int, pieces: Sequence[bytes]) -> None:
        with writing.translated(self.place):
            writing.write_all(self._file, start, pieces)

    def finish(self) -> None:
        """Durable, then under its name. ``TargetRefused`` if somebody made a file of that name meanwhile."""
        with writing.translated(self.place):
            os.fsync(self._file)
            self._rename()
            self._finished = True
            _fsync_folder(self.place.parent)

    def _rename(self) -> None:
        """A link fails where a rename would replace; what has no hard links has no better way."""
        try:
            os.link(self._part, self.place)
        except FileExistsError:
            raise _exists(self.place) from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._part.rename(self.place)
        else:
            self._part.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._file)
        if not self._finished:
            with contextlib.suppress(OSError):
                self._part.unlink()


def refuse_existing(place: Path) -> None:
    """Nothing is overwritten, not even what a broken link names."""
    if os.path.lexists(place):
        raise _exists(place)


def _exists(place: Path) -> errors.TargetRefused:
    return errors.TargetRefused(
        f"{place} exists and is not overwritten. Restore to another place, or move it away.", target=str(place)
    )


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
