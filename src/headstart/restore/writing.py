"""Writing at places of a file or device, with the system's errors as errors for the user."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart import errors, units
from headstart.store.contract import Data

_FULL = {errno.ENOSPC, errno.EDQUOT}


def write_all(descriptor: int, start: int, pieces: Sequence[Data]) -> None:
    """The pieces one behind the other, in one request as a rule: at most 1024 (IOV_MAX) of them."""
    position = start + os.pwritev(descriptor, pieces, start)
    end = start + sum(map(len, pieces))
    if position < end:  # it was cut short: the next request tells why
        whole = memoryview(b"".join(pieces))
        while position < end:
            position += os.pwrite(descriptor, whole[position - start :], position)


class Direct:
    """Writes what is large past the page cache, into a file that is open as ``descriptor``.

    A restored disk is not read soon: in the page cache it would take the place of what is, and copying into it costs
    more processor time than decompressing. What is left there is brought to the disk at once, so that the fsync at
    the end finds nothing to do. Any thread may use it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._direct = _open_direct(descriptor)
        self._buffers: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        length = sum(map(len, pieces))
        if self._direct >= 0 and length >= _WORTH_DIRECT and not (start % _PAGE or length % _PAGE):
            self._write_direct(start, length, pieces)
        else:
            write_all(self._descriptor, start, pieces)
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)

    def _write_direct(self, start: int, length: int, pieces: Sequence[Data]) -> None:
        try:
            buffer = self._buffers.get_nowait()
        except queue.Empty:
            buffer = mmap.mmap(-1, _BUFFER)
        try:
            if length > len(buffer):
                buffer.close()
                buffer = mmap.mmap(-1, length)
            buffer.seek(0)
            for piece in pieces:
                buffer.write(piece)
            with memoryview(buffer) as view:
                write_all(self._direct, start, [view[:length]])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A device of larger sectors, or a file system that promised what it does not do.
            write_all(self._descriptor, start, pieces)
        finally:
            self._buffers.put(buffer)

    def close(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)


#: Smaller writes cost less through the page cache.
_WORTH_DIRECT = 256 * units.KIB
_BUFFER = 2 * units.MIB
_PAGE = 4096


def _open_direct(descriptor: int) -> int:
    """The same file once more; -1 where the file system has no such writes."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return -1


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
