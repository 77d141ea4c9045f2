"""A repository in one file, to be carried to another place: an uncompressed tar of its objects.

::

    | header | pack | header | pack | ... | header | index | ... | header | config | 1024 zero bytes |
      512 B    padded to 512 B                                     the last one: who has it has all

Written once from the beginning to the end, so also into a pipe. Taken apart with ``tar``, it is an ordinary directory
with the repository. The objects are sealed as everywhere; the tar around them is not, and tells only their names.
"""

from __future__ import annotations

import os
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headstart import errors
from headstart.store import contract
from headstart.store.contract import Data, Exists, Missing

#: Of file names; the address of a repository is told from a directory by what is there.
SUFFIX = ".hsx"
#: Written last. By this the file is known to be whole.
LAST = "config"
#: Objects that come and go while a repository is being filled: they are written only if they are there at the end.
PASSING = ("drafts/", "leases/", LAST)
#: Of these there is more than fits into memory; who writes them knows what is in them.
LARGE = ("packs/", "indexes/")
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int
    size: int
    modified: float


class ArchiveStore:
    """A :class:`contract.Store` over such a file, for reading. Leases may be taken: nobody can change the file."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet. Every method raises ``NoRepository`` where there is no such file, and ``Damaged`` where
        it is not whole."""
        self.path = path
        self._lock = threading.Lock()
        self._file = -1
        self._found: dict[str, _Place] = {}
        self._leases: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return str(self.path)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def window(self) -> int:
        return contract.NEAR

    @property
    def host(self) -> str:
        return ""

    def _places(self) -> dict[str, _Place]:
        with self._lock:
            if self._file < 0:
                file = _opened(self.path)
                try:
                    self._found = dict(_scan(file, self.path))
                except BaseException:
                    os.close(file)
                    raise
                self._file = file
            return self._found

    def create(self, key: str, data: Data) -> None:
        if not contract.check_key(key).startswith("leases/"):
            raise errors.Unsupported(f"{self.path} is an export: it is only read. 'headstart import' takes it over.")
        with self._lock:
            self._leases[key] = bytes(data)

    def read(self, key: str) -> bytes:
        if key in self._leases:
            return self._leases[key]
        place = self._place(key)
        return self._exactly(key, place.offset, place.size)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        place = self._place(key)
        return self._exactly(key, place.offset + offset, max(0, min(length, place.size - offset)))

    def _place(self, key: str) -> _Place:
        found = self._places().get(contract.check_key(key))
        if found is None:
            raise Missing(f"{key} is missing in {self.path}.", object=key)
        return found

    def _exactly(self, key: str, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file, length, offset)
        except OSError as error:
            raise errors.Damaged(f"Could not read {key} in {self.path}: {error.strerror}.", object=key) from error
        if len(data) < length:
            raise _cut_short(self.path)
        return data

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        found = self._places()
        leases = {key: len(data) for key, data in self._leases.items()}
        sizes = {key: place.size for key, place in found.items()} | leases
        return ((key, size) for key, size in sizes.items() if key.startswith(prefix))

    def delete(self, key: str) -> None:
        with self._lock:
            if self._leases.pop(key, None) is None and key in self._found:
                raise errors.Unsupported(f"{self.path} is an export: it can only be read.")

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        found = self._places()
        return ((key, place.size, place.modified) for key, place in found.items() if key.startswith(prefix))

    def locks(self) -> contract.Locks | None:
        return None

    def clock(self) -> float:
        return time.time()


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.NoRepository(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _scan(file: int, path: Path) -> Iterator[tuple[str, _Place]]:
    """The objects, by their headers alone."""
    position, last = 0, ""
    size = os.fstat(file).st_size
    while True:
        head = os.pread(file, _BLOCK, position)
        if len(head) < _BLOCK:
            raise _cut_short(path) if position else _none(path)
        if head == bytes(_BLOCK):
            if last != LAST:
                raise _cut_short(path)
            return
        try:
            member = tarfile.TarInfo.frombuf(head, "ascii", "strict")
            contract.check_key(member.name)
        except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
            if not position:
                raise _none(path) from None
            raise errors.Damaged(
                f"{path} is damaged at byte {position}. Get it anew from where it came.", offset=position
            ) from None
        offset = position + _BLOCK
        if member.size < 0 or offset + member.size > size:
            raise _cut_short(path)
        yield member.name, _Place(offset, member.size, float(member.mtime))
        last = member.name
        position = offset + -(-member.size // _BLOCK) * _BLOCK


def _none(path: Path) -> errors.NoRepository:
    return errors.NoRepository(f"{path} is no repository and no export of Headstart. Check the path.")


def _cut_short(path: Path) -> errors.Damaged:
    return errors.Damaged(f"{path} is not whole: it ends too early. Get it anew from where it came.", file=str(path))


class ArchiveWriter:
    """A :class:`contract.Store` that is being written into ``file``, from its present place on. ``finish`` ends it;
    until then nothing can be read from the file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._small: dict[str, bytes] = {}
        self.written = 0

    def __repr__(self) -> str:
        return self._name

    @property
    def window(self) -> int:
        return contract.NEAR

    @property
    def host(self) -> str:
        return ""

    def create(self, key: str, data: Data) -> None:
        with self._lock:
            if contract.check_key(key) in self._sizes:
                raise Exists(f"{key} exists already", object=key)
            self._sizes[key] = len(data)
            if not key.startswith(LARGE):
                self._small[key] = bytes(data)
            if not key.startswith(PASSING):
                self._append(key, data)

    def _append(self, key: str, data: Data) -> None:
        member = tarfile.TarInfo(key)
        member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
        self._put(member.tobuf(tarfile.USTAR_FORMAT))
        self._put(data)
        self._put(bytes(-len(data) % _BLOCK))

    def _put(self, data: Data) -> None:
        view = memoryview(data).cast("B") if data else memoryview(b"")
        try:
            while view:
                view = view[self._file.write(view) :]
        except BrokenPipeError as error:
            raise errors.StoreFailed(f"{self._name} is not read to its end any longer.") from error
        except OSError as error:
            raise errors.NoSpace(f"Could not write {self._name}: {error.strerror}. Make room there.") from error
        self.written += len(data)

    def finish(self) -> None:
        """Everything is in the file, which is flushed and not synchronised."""
        with self._lock:
            rest = sorted(key for key in self._small if key.startswith(PASSING) and key != LAST)
            for key in (*rest, LAST):
                self._append(key, self._small[key])
            self._put(_END)
            try:
                self._file.flush()
            except OSError as error:
                raise errors.NoSpace(f"Could not write {self._name}: {error.strerror}. Make room there.") from error

    def read(self, key: str) -> bytes:
        with self._lock:
            try:
                return self._small[contract.check_key(key)]
            except KeyError:
                raise Missing(f"{key} is missing", object=key) from None

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self.read(key)[offset : offset + length]

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with self._lock:
            return iter([(key, size) for key, size in self._sizes.items() if key.startswith(prefix)])

    def delete(self, key: str) -> None:
        with self._lock:
            if key in self._sizes and not key.startswith(PASSING):
                raise errors.Unsupported(f"{key} is written to {self._name} already.")
            self._sizes.pop(key, None)
            self._small.pop(key, None)

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        now = time.time()
        return ((key, size, now) for key, size in self.list(prefix))

    def locks(self) -> contract.Locks | None:
        return None

    def clock(self) -> float:
        return time.time()
