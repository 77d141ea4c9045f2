"""A file that gets its name only when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from headstart import durable, errors
from headstart.restore import claim, writing
from headstart.store.contract import Data

SUFFIX = ".part"
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class PartFile:
    """``place`` in the making, as ``place.part``. A context manager: without ``finish`` the part is removed, unless an
    error that may pass ends it and the same can be gone on with later.

    A part that an interrupted restore left behind is used again, which ``notes`` tell. Raises ``TargetRefused`` if
    there is anything else of either name. The file is its owner's alone: disks hold secrets.
    """

    def __init__(self, place: Path, size: int, purpose: str = "") -> None:
        """All of its ``size`` bytes are a hole until they are written; but what was made for the same ``purpose`` (see
        ``claim``) has what was written to it then, if ``resumed``."""
        self.place = place
        self._part = part_of(place)
        self._size = size
        self._purpose = purpose
        self._finished = self._written = False
        refuse_existing(place)
        with writing.translated(place):
            claimed = claim.claim(self._part, size, purpose)
        self._file = claimed.descriptor
        self._direct = writing.Direct(self._file)
        self.resumed = claimed.resumed
        what = "gone on with" if claimed.resumed else "replaced"
        self.notes = (f"{self._part}, which an interrupted restore had left behind, was {what}",) * claimed.leftover
        try:
            if not claimed.resumed:
                with writing.translated(place):
                    claim.set_size(self._file, size, purpose)
        except BaseException:
            self.__exit__()
            raise

    @property
    def descriptor(self) -> int:
        """Open for reading and writing."""
        return self._file

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        self._written = True
        with writing.translated(self.place):
            self._direct.write(start, pieces)

    def finish(self) -> None:
        """Durable, then under its name. ``TargetRefused`` if somebody made a file of that name meanwhile."""
        with writing.translated(self.place):
            os.fsync(self._file)  # long: the mark stays until it is done
            os.truncate(self._file, self._size)
            os.fsync(self._file)
            self._rename(self._part)
            self._finished = True
            durable.sync_folder(self.place.parent)

    def finish_with(self, other: Path) -> None:
        """Give the name to another file beside it, which is durable; the part has only held the place."""
        with writing.translated(self.place):
            self._rename(other)
            self._part.unlink()
            self._finished = True
            durable.sync_folder(self.place.parent)

    def _rename(self, made: Path) -> None:
        _rename(made, self.place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        error = details[1] if details else None
        if self._finished:
            pass
        elif isinstance(error, BaseException) and self._purpose and (self._written or self.resumed):
            error.add_note(
                f"What was restored is kept in {self._part}: give the same command again to go on, or remove it."
            )
        else:
            with contextlib.suppress(OSError):
                self._part.unlink()  # while it is locked: later it may be somebody else's
        self._direct.close()
        os.close(self._file)


def _rename(made: Path, place: Path) -> None:
    """A link fails where a rename would replace; what has no hard links has no better way."""
    try:
        os.link(made, place)
    except FileExistsError:
        raise _exists(place) from None
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        made.rename(place)
    else:
        made.unlink(missing_ok=True)


def part_of(place: Path) -> Path:
    """``place`` in the making."""
    return place.with_name(place.name + SUFFIX)


def finish_whole(place: Path) -> bool:
    """Give the part of ``place`` its name: it was seen to be whole, as a restore that was killed in its very last steps
    leaves it, with its mark cut off. False if another restore is in these steps now, and if the file has another name
    already, by which somebody may use it: two names would be one disk for two VMs."""
    with writing.translated(place):
        file = os.open(part_of(place), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not claim.lock(file) or os.fstat(file).st_nlink != 1:
                return False
            os.fsync(file)
            _rename(part_of(place), place)
            durable.sync_folder(place.parent)
            return True
        finally:
            os.close(file)


def drop_second_name(place: Path) -> None:
    """A restore that was killed just when it gave ``place`` its name has left it its first one as well."""
    part = part_of(place)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(place.lstat(), part.lstat()):
            part.unlink(missing_ok=True)


def refuse_existing(place: Path) -> None:
    """Nothing is overwritten, not even what a broken link names."""
    if os.path.lexists(place):
        raise _exists(place)


def holds(place: Path, content: bytes) -> bool:
    """Whether there is such a file with just this content."""
    try:
        found = place.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_size == len(content) and place.read_bytes() == content
    except OSError:
        return False


def _exists(place: Path) -> errors.TargetRefused:
    return errors.TargetRefused(
        f"{place} exists and is not overwritten. Restore to another place, move it away, "
        "or name just other disks with --disk.",
        target=str(place),
    )
