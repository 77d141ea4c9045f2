"""Files of a snapshot, for who has unlocked its repository: opened snapshots, a few at a time.

What is on a guest's disks is parsed in processes of their own (``volumes.confined``), which a hostile disk can at most
end. A snapshot that was opened stays so for a while, as a click follows the other.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from headstart import errors, plain, repository
from headstart.repository import lease, snapshot
from headstart.repository.keys import Secrets
from headstart.restore.files.archive import Archive
from headstart.restore.files.contents import Contents
from headstart.restore.files.extraction import Copied
from headstart.restore.files.filetree import File, FileTree
from headstart.restore.files.guestpath import GuestPath
from headstart.store.contract import Store

#: Opened at a time in one process, and of one person. Each has processes, and some tens of MiB.
MOST, MOST_OF_ONE = 8, 2
IDLE_SECONDS = 120.0
#: Of a file that is being sent.
_PIECE = 1 << 20


@dataclass(slots=True)
class _Opened:
    contents: Contents
    stack: contextlib.ExitStack
    whose: str
    used: float
    users: int = 0


@dataclass(frozen=True, slots=True)
class Key:
    """``whose``: a person's or a program's id."""

    whose: str
    repository: str
    snapshot: str


@dataclass(slots=True)
class Shelf:
    """Opened snapshots of one process. Any thread may use it."""

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: dict[Key, _Opened] = field(default_factory=dict)
    _sweeping: bool = False

    @contextlib.contextmanager
    def contents(self, key: Key, store: Store, secrets: Secrets) -> Iterator[Contents]:
        """Raises ``TooOften`` where too many are being looked at; ``NotFound``, ``Damaged``."""
        found = self._take(key) or self._open(key, store, secrets)
        try:
            yield found.contents
        finally:
            with self._lock:
                found.users -= 1
                found.used = self.clock()

    def _take(self, key: Key) -> _Opened | None:
        with self._lock:
            found = self._opened.get(key)
            if found is not None:
                found.users += 1
            return found

    def _open(self, key: Key, store: Store, secrets: Secrets) -> _Opened:
        self._make_room(key.whose)
        with contextlib.ExitStack() as stack:
            repo = stack.enter_context(repository.open_with(store, secrets))
            manifest = snapshot.load(repo, key.snapshot)
            stack.enter_context(lease.reading_snapshot(repo, "browse", manifest))
            contents = stack.enter_context(Contents(repo, manifest))
            opened = _Opened(contents, stack.pop_all(), key.whose, self.clock(), users=1)
        with self._lock:
            other = self._opened.get(key)
            if other is None:
                self._opened[key] = opened
                self._sweep_later()
                return opened
            other.users += 1
        opened.stack.close()  # somebody was quicker
        return other

    def _make_room(self, whose: str) -> None:
        with self._lock:
            mine = [key for key, each in self._opened.items() if each.whose == whose]
            going = []
            if len(mine) >= MOST_OF_ONE:
                going.append(self._oldest(mine))
            elif len(self._opened) >= MOST:
                going.append(self._oldest(list(self._opened)))
            closed = [self._opened.pop(key) for key in going]
        for each in closed:
            each.stack.close()

    def _oldest(self, keys: list[Key]) -> Key:
        idle = [key for key in keys if not self._opened[key].users]
        if not idle:
            raise errors.TooOften("Too many snapshots are being looked at just now. Try again.", seconds=10)
        return min(idle, key=lambda key: self._opened[key].used)

    def _sweep_later(self) -> None:
        """One timer at a time, while something is open."""
        if not self._sweeping:
            self._sweeping = True
            timer = threading.Timer(IDLE_SECONDS / 4, self.sweep)
            timer.daemon = True
            timer.start()

    def sweep(self) -> None:
        """Close those that nobody has looked at for a while."""
        with self._lock:
            limit = self.clock() - IDLE_SECONDS
            old = [key for key, each in self._opened.items() if not each.users and each.used <= limit]
            closed = [self._opened.pop(key) for key in old]
            self._sweeping = False
            if self._opened:
                self._sweep_later()
        for each in closed:
            each.stack.close()

    def close(self) -> None:
        with self._lock:
            closed = list(self._opened.values())
            self._opened.clear()
        for each in closed:
            each.stack.close()


def find(contents: Contents, volume: str, path: str) -> tuple[FileTree, File]:
    """Raises ``NotFound``, ``Usage``, what reading raises."""
    if "\0" in path or "\0" in volume:
        raise errors.Usage("A path has no NUL in it.")
    return contents.find(GuestPath("", volume, path or ("/" if volume else "")))


def shown(name: str) -> str:
    """Names and paths as text that can be written: bytes that are no UTF-8 as ``\\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def content(file: File) -> Generator[bytes]:
    """Of a regular file, in pieces. Raises ``Usage`` for another kind at once."""
    if file.node.kind != "file":
        raise errors.Usage(f"{file.path!r} is no file that could be downloaded: it is a {file.node.kind}.")
    details = file.details()
    return _pieces(file, details.node.size)


def _pieces(file: File, size: int) -> Generator[bytes]:
    details = file.details()
    for start in range(0, size, _PIECE):
        yield file.system.read(details, start, min(_PIECE, size - start))


def archive(tree: FileTree, top: File, name: str) -> Generator[bytes]:
    """A tar of ``top`` and all below it, as it is made. What cannot be read is left out of it, or zeroes, and told in
    a file that comes last, ``NAME.left-out``. Raises what else keeps it from being made, such as ``StoreFailed``."""
    reading, writing = os.pipe()
    failed: list[Exception] = []
    thread = threading.Thread(target=_write, args=(os.fdopen(writing, "wb"), tree, top, name, failed), daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            while piece := stream.read1(_PIECE):
                yield piece
    finally:
        # Where nobody reads on, the writer's pipe breaks.
        thread.join()
    if failed:
        # A tar that ends too early would be taken for whole.
        raise failed[0]


def _write(stream: BinaryIO, tree: FileTree, top: File, name: str, failed: list[Exception]) -> None:
    copied = Copied()
    made = Archive(stream, copied)
    try:
        with stream:
            made.add(tree, top, name, lambda _: None)
            if copied.troubles.count or copied.lacking:
                made.add_text(f"{name}.left-out", "".join(f"{line}\n" for line in _told(copied)))
            made.close()
    except Exception as error:
        failed.append(error)


def _told(copied: Copied) -> Iterator[str]:
    for path, why in copied.troubles.kept:
        yield f"{plain.line(path)}: {plain.joined(why)}"
    more = copied.troubles.count - len(copied.troubles.kept)
    if more:
        yield f"... and {more} more"
    yield from copied.notes()
