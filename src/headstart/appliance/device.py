"""Reading a disk that was plugged into this machine, past its page cache: a ``Reader`` (see headstart.reading)."""

from __future__ import annotations

import functools
import mmap
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from headstart import errors, extents
from headstart.agentd.layout import Layout
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece

#: From the word that it is there until the kernel has found it.
ARRIVAL_SECONDS = 15.0
_LOOK_SECONDS = 0.05
#: Requests under way, and buffers.
DEPTH = 12
#: What O_DIRECT asks of places and lengths, at most.
_ALIGNMENT = 4096


def wait_for(serial: str, wanted: Callable[[], bool], seconds: float = ARRIVAL_SECONDS) -> Path | None:
    """The device with this serial number; None if it does not come, or is not ``wanted`` any longer."""
    deadline = time.monotonic() + seconds
    while wanted() and time.monotonic() < deadline:
        for disk in Layout().describe()["disks"]:
            path = Path("/dev", disk["name"])
            if disk["serial"] == serial and path.exists():
                return path
        time.sleep(_LOOK_SECONDS)
    return None


class DeviceReader:
    """A context manager. ``failure`` makes what is raised when it cannot be read any longer."""

    def __init__(self, path: Path, failure: Callable[[str], errors.HeadstartError]) -> None:
        """Raises what ``failure`` makes, also where it could be written to."""
        self._path = path
        self._failure = failure
        try:
            if (Path("/sys/class/block") / path.name / "ro").read_text().strip() != "1":
                raise failure(f"{path} is not read-only: it is none that a host has offered.")
            self._file = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError as error:
            raise failure(f"{path} cannot be opened: {error.strerror}.") from error
        self._size = os.lseek(self._file, 0, os.SEEK_END)
        self._threads = ThreadPoolExecutor(DEPTH, "device")
        self._buffers: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        for _ in range(DEPTH):
            self._buffers.put(mmap.mmap(-1, PIECE_SIZE + 2 * _ALIGNMENT))

    @property
    def size(self) -> int:
        return self._size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        flying: deque[Future[Piece]] = deque()
        try:
            for extent in wanted:
                for piece in extents.split(extent, PIECE_SIZE):
                    while (buffer := self._buffer(wait=not flying)) is None:
                        yield flying.popleft().result()
                    flying.append(self._threads.submit(self._piece, piece, buffer))
            while flying:
                yield flying.popleft().result()
        finally:
            for each in flying:
                if each.exception() is None:
                    each.result().release()

    def _buffer(self, *, wait: bool) -> mmap.mmap | None:
        """A free one. A consumer may hold all that do not fly."""
        try:
            return self._buffers.get(block=wait)
        except queue.Empty:
            return None

    def _piece(self, extent: Extent, buffer: mmap.mmap) -> Piece:
        start = extent.start // _ALIGNMENT * _ALIGNMENT
        end = min(-(-extent.end // _ALIGNMENT) * _ALIGNMENT, self._size)
        view = memoryview(buffer)
        try:
            done = 0
            while done < end - start:
                count = os.preadv(self._file, [view[done : end - start]], start + done)
                if not count:
                    raise self._failure(f"{self._path} ends at {start + done}.")
                done += count
        except OSError as error:
            self._buffers.put(buffer)
            raise self._failure(f"{self._path} cannot be read at {extent.start}: {error.strerror}.") from error
        release = functools.partial(self._buffers.put, buffer)
        return Piece(extent, view[extent.start - start : extent.end - start], release)

    def close(self) -> None:
        self._threads.shutdown()
        os.close(self._file)

    def __enter__(self) -> DeviceReader:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
