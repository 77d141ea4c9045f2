"""Chunks in memory, and on their way there.

::

    read     chunk --> kept? --> under way? --> the repository, each frame once, whoever else asks for it waits
    ahead    the same, on threads of its own, and nobody waits

What is kept are frames as they were opened: a chunk is a part of one, and would hold all of it in memory.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from headstart import errors
from headstart.repository import Repository
from headstart.store.contract import Data

Found = dict[bytes, "Data | errors.Damaged"]

#: Threads that fetch ahead, at most; of a store that is near, fewer: one more than keep the processors busy, as each
#: waits for the interpreter at times.
_THREADS = 8


@dataclass(slots=True)
class _Flight:
    """Chunks that one thread fetches, and others may wait for."""

    landed: threading.Event = field(default_factory=threading.Event)
    found: Found = field(default_factory=dict)
    error: BaseException | None = None


@dataclass(slots=True)
class _Kept:
    """One opened frame, and its chunks that were asked for."""

    buffer: object
    size: int
    chunks: list[bytes] = field(default_factory=list)


class Pool:
    """At most ``capacity`` bytes are kept, and what is being read. Any thread may use it."""

    def __init__(self, repo: Repository, capacity: int) -> None:
        self.capacity = capacity
        self._repo = repo
        self._lock = threading.Lock()
        self._chunks: dict[bytes, tuple[Data, _Kept]] = {}
        self._kept: collections.OrderedDict[int, _Kept] = collections.OrderedDict()
        self._size = 0
        self._flights: dict[bytes, _Flight] = {}
        self._threads = ThreadPoolExecutor(min(_THREADS, repo.store.window + 1), thread_name_prefix="read ahead")

    def read(self, wanted: Iterable[bytes], along: Callable[[], Iterable[bytes]] = tuple) -> Found:
        """Each of ``wanted``, or why it cannot be read. ``along``: what to fetch with them if any is to be fetched."""
        asked = set(wanted)
        with self._lock:
            found, lacking = self._look(asked)
            lacks = any(chunk not in self._flights for chunk in lacking)
        if not lacking:
            return found
        if lacks:
            found |= self._fetch(lacking.union(along()), asked)
            lacking -= found.keys()
        return found | self._await(lacking)

    def ahead(self, chunks: Iterable[bytes]) -> None:
        """Fetch them, soon. Whoever reads them meanwhile waits for that: it is faster than if he did it, too."""
        flight, mine, _ = self._begin(set(chunks))
        if mine:
            self._threads.submit(self._fly_alone, flight, mine)

    def _fly_alone(self, flight: _Flight, mine: set[bytes]) -> None:
        with contextlib.suppress(errors.HeadstartError):  # told to those who wait
            self._fly(flight, mine)

    def _look(self, asked: set[bytes]) -> tuple[Found, set[bytes]]:
        """What is kept, and the rest; the lock is held."""
        found: Found = {}
        for chunk in asked & self._chunks.keys():
            data, kept = self._chunks[chunk]
            self._kept.move_to_end(id(kept.buffer))
            found[chunk] = data
        return found, asked - found.keys()

    def _fetch(self, chunks: set[bytes], asked: set[bytes]) -> Found:
        """Those that are neither kept nor under way; of those, what was ``asked`` for is returned."""
        flight, mine, found = self._begin(chunks)
        if mine:
            self._fly(flight, mine)
            found |= flight.found
        return {chunk: found[chunk] for chunk in asked & found.keys()}

    def _begin(self, chunks: set[bytes]) -> tuple[_Flight, set[bytes], Found]:
        """A flight for those of them that are neither kept nor under way; and what is kept."""
        flight = _Flight()
        with self._lock:
            found, lacking = self._look(chunks)
            mine = lacking - self._flights.keys()
            self._flights.update(dict.fromkeys(mine, flight))
        return flight, mine, found

    def _fly(self, flight: _Flight, mine: set[bytes]) -> None:
        try:
            flight.found = dict(self._repo.scan_chunks(mine))
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                self._keep(flight.found)
                for chunk in mine:
                    del self._flights[chunk]
            flight.landed.set()

    def _await(self, lacking: set[bytes]) -> Found:
        """What others fetch, or have fetched by now."""
        found: Found = {}
        while lacking:
            with self._lock:
                kept, lacking = self._look(lacking)
                flight = next((self._flights[chunk] for chunk in lacking if chunk in self._flights), None)
            found |= kept
            if flight is not None:
                flight.landed.wait()
                if flight.error is not None:
                    raise flight.error
                found |= {chunk: flight.found[chunk] for chunk in lacking & flight.found.keys()}
            elif lacking:  # landed, and dropped again, before we came to it
                found |= self._fetch(lacking, lacking)
            lacking -= found.keys()
        return found

    def _keep(self, found: Found) -> None:
        """The lock is held."""
        for chunk, data in found.items():
            if isinstance(data, errors.Damaged) or chunk in self._chunks:
                continue
            buffer = data.obj if isinstance(data, memoryview) else data
            kept = self._kept.get(id(buffer))
            if kept is None:
                kept = self._kept[id(buffer)] = _Kept(buffer, memoryview(buffer).nbytes)
                self._size += kept.size
            kept.chunks.append(chunk)
            self._chunks[chunk] = data, kept
        while self._size > self.capacity:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.size
            for chunk in dropped.chunks:
                del self._chunks[chunk]
