"""The cache of an index on a host: segments in a directory, shared by all processes that use the repository there.

::

    DIRECTORY/<repository id>/lock        held while the list of segments is changed
                              current     the list: what is not in it does not exist
                              <random>    a segment

Whoever has read or written index objects adds a segment with what is new, and joins small ones to larger ones: nobody
waits for that, and who has mapped the old ones goes on with them. What the cache says is only ever what an index object
said; losing it costs time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path

from headstart.repository import seal, segment
from headstart.repository.keys import Secrets
from headstart.repository.known import Known
from headstart.repository.memtable import MemTable
from headstart.repository.segment import Segment, Unusable
from headstart.repository.table import Base

_CURRENT = "current"
_LOCK = "lock"
#: Changing the list takes milliseconds. Whoever does not get to it has no cache of what it added.
_LOCK_SECONDS = 5.0
#: Seconds after which a file that is not in the list is of a process that died: writing one takes minutes at most.
_ABANDONED_AFTER = 3600.0


class Shelf:
    """All methods raise ``OSError``."""

    def __init__(self, directory: Path, repository: Secrets) -> None:
        self._directory = directory / repository.repository_id.hex()
        self._key = seal.derive(repository.structure, b"index cache")

    def segments(self) -> list[Segment]:
        """Those of the list that are whole, each with the base that it has after the others."""
        found = self._opened()
        while found is None:
            found = self._opened()
        return found

    def _opened(self) -> list[Segment] | None:
        """None if the list was changed meanwhile."""
        found, base = list[Segment](), Base()
        names = self._names()
        for name in names:
            try:
                found.append(Segment(self._directory / name, self._key, base))
                base = found[-1].end
            except FileNotFoundError:
                if self._names() != names:
                    return None
            except Unusable:
                continue
        return found

    def add(self, table: MemTable, objects: Sequence[Known]) -> Segment:
        """A segment with what is in memory."""
        return self._made(lambda path: segment.write(path, self._key, table.columns, objects), table.base, [])

    def join(self, parts: Sequence[Segment]) -> Segment:
        """One in place of several that follow one another. They exist as long as somebody has them mapped."""
        return self._made(lambda path: segment.join(path, self._key, parts), parts[0].base, parts)

    def _made(self, write: Callable[[Path], None], base: Base, instead_of: Sequence[Segment]) -> Segment:
        self._make()
        path = self._directory / secrets.token_hex(16)
        write(path)
        made = Segment(path, self._key, base)
        if not self._list(path.name, [each.path.name for each in instead_of]):
            path.unlink()  # it serves this process alone
        return made

    def remove(self, gone: Iterable[Segment]) -> None:
        with self._locked() as held:
            if held:
                self._replace(self._names(), {each.path.name for each in gone})

    def _list(self, name: str, instead_of: Sequence[str]) -> bool:
        """False where others are at it, or have joined these already."""
        with self._locked() as held:
            names = self._names() if held else []
            if not held or not set(names).issuperset(instead_of):
                return False
            place = names.index(instead_of[0]) if instead_of else len(names)
            self._replace([*names[:place], name, *names[place:]], set(instead_of))
            return True

    def _names(self) -> list[str]:
        """Nothing is said by a list that makes no sense: then all is read from the store again."""
        try:
            names = json.loads((self._directory / _CURRENT).read_bytes())
        except (FileNotFoundError, ValueError):
            return []
        if not isinstance(names, list):
            return []
        return [name for name in names if isinstance(name, str) and not set(name) - set("0123456789abcdef")]

    def _replace(self, names: Iterable[str], gone: Container[str]) -> None:
        left = [name for name in names if name not in gone]
        fresh = self._directory / f"{_CURRENT}.new"
        with fresh.open("w") as file:
            json.dump(left, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._directory / _CURRENT)
        limit = time.time() - _ABANDONED_AFTER
        needed = {_LOCK, _CURRENT, *left}
        for path in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.name in gone or (path.name not in needed and path.stat().st_mtime < limit):
                    path.unlink()

    def _make(self) -> None:
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        self._make()
        descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield _lock(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
