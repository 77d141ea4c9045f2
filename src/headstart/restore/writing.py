"""Writing at places of a file or device, with the system's errors as errors for the user."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart import errors
from headstart.store.contract import Data

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_all(descriptor: int, start: int, pieces: Sequence[Data]) -> None:
    """The pieces one behind the other, in one request as a rule: at most 1024 (IOV_MAX) of them.

    The system begins at once to bring them to the disk, so that the fsync at the end finds nothing left to do
    (0.02 s instead of 0.9 s for 1.7 GiB).
    """
    position = start + os.pwritev(descriptor, pieces, start)
    end = start + sum(map(len, pieces))
    if position < end:  # it was cut short: the next request tells why
        whole = memoryview(b"".join(pieces))
        while position < end:
            position += os.pwrite(descriptor, whole[position - start :], position)
    os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def translated(place: Path) -> Iterator[None]:
    """``OSError`` as ``NoSpace`` or ``TargetRefused``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise errors.NoSpace(
                f"{place} cannot be written: {reason}. Make room there, or restore to another place.", target=str(place)
            ) from error
        raise errors.TargetRefused(
            f"{place} cannot be written: {reason}. Restore to another place, or put this one right.", target=str(place)
        ) from error
