"""Claiming the name of a file in the making, also from a restore that was killed.

::

    in the making    |...content, holes...|purpose|MARK      locked (flock) by whoever makes it
    killed           |...content, holes...|purpose|MARK      not locked: a leftover, and nothing of anybody is in it
    whole            |.......content......|                  purpose and mark are cut off before it gets its name

The mark tells our leftovers from files of somebody else, which are never touched. It needs nothing of the file system.
The purpose tells for what exactly the file was being made: whoever makes the same goes on with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from headstart import errors

MARK = b"\nAn unfinished restore of Headstart. If none is running, it can be removed.\n"
#: Hexadecimal digits that say for what a file is being made.
PURPOSE_LENGTH = 64
#: The system cannot lock such files: then nobody knows who works on one.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@dataclass(frozen=True, slots=True)
class Claim:
    """A file, which this process alone works on until it closes ``descriptor``. ``leftover``: it was there. It is empty
    unless ``resumed``: then it was being made for the same purpose, in the same size."""

    descriptor: int
    leftover: bool
    resumed: bool = False


def claim(part: Path, size: int = 0, purpose: str = "") -> Claim:
    """``purpose``: ``PURPOSE_LENGTH`` digits; empty: nothing is ever resumed. Raises ``TargetRefused`` for what another
    restore works on and for what is not ours, ``OSError``."""
    while True:
        descriptor, leftover = _opened(part)
        try:
            _lock(descriptor, part, needed=leftover)
            if _is_at(descriptor, part):
                resumed = False
                if leftover:
                    _refuse_foreign(descriptor, part)
                    resumed = bool(purpose) and _is_for(descriptor, size, purpose)
                    if not resumed:
                        os.truncate(descriptor, 0)
                return Claim(descriptor, leftover, resumed)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever had it has finished just now


def set_size(descriptor: int, size: int, purpose: str = "") -> None:
    """Of a claimed file that is empty; all of it is a hole until it is written. Durable with a purpose, which has to be
    there after a power cut."""
    os.truncate(descriptor, size)
    os.pwrite(descriptor, _end(purpose), size)
    if purpose:
        os.fsync(descriptor)


def _end(purpose: str) -> bytes:
    return (f"\n{purpose}".encode() if purpose else b"") + MARK


def _is_for(descriptor: int, size: int, purpose: str) -> bool:
    end = _end(purpose)
    return os.fstat(descriptor).st_size == size + len(end) and os.pread(descriptor, len(end), size) == end


def _opened(part: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_CLOEXEC
    while True:
        try:
            return os.open(part, flags | os.O_CREAT | os.O_EXCL, 0o600), False
        except FileExistsError:
            pass
        try:
            return os.open(part, flags | os.O_NOFOLLOW | os.O_NONBLOCK), True
        except FileNotFoundError:
            continue
        except OSError:
            raise _foreign(part) from None


def _lock(descriptor: int, part: Path, *, needed: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.TargetRefused(
            f"{part} exists, and another restore is writing it. Wait until it is done, or restore to another place.",
            target=str(part),
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if needed:
            raise _foreign(part) from None


def lock(descriptor: int) -> bool:
    """False if somebody works on the file, or if that cannot be known."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(descriptor: int, part: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), part.lstat())
    except FileNotFoundError:
        return False


def _refuse_foreign(descriptor: int, part: Path) -> None:
    """Others may read what they made, or have open: a disk holds secrets."""
    found = os.fstat(descriptor)
    private = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o600 and found.st_nlink == 1
    if not (stat.S_ISREG(found.st_mode) and private and _is_marked(descriptor, found.st_size)):
        raise _foreign(part)


def _is_marked(descriptor: int, size: int) -> bool:
    """Or killed before it came to that."""
    return size == 0 or (size >= len(MARK) and os.pread(descriptor, len(MARK), size - len(MARK)) == MARK)


def _foreign(part: Path) -> errors.TargetRefused:
    return errors.TargetRefused(
        f"{part} exists, and it cannot be told that a restore of Headstart left it behind. "
        "If nobody needs it, remove it; else restore to another place.",
        target=str(part),
    )
