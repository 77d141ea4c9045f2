"""A store in a directory of a local or network file system.

How an object becomes durable, and visible only then::

    .tmp/<random>   write, fsync                 the content is on the disk
    link to the final name                       atomic, and fails if the name is taken
    fsync of the folder (and of new parents)     the name is on the disk
    unlink .tmp/<random>
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from headstart import durable, errors, units
from headstart.store import contract

#: Folder of unfinished objects, on the same file system as the finished ones.
TEMPORARY = ".tmp"
#: Seconds after which an unfinished object has no living writer: no single object takes that long.
ABANDONED_AFTER = 24 * 3600

#: Objects at least this long are written past the page cache.
WORTH_DIRECT = units.MIB
#: No disk asks direct writes to be aligned more.
_PAGE = 4096

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: What a file system says of an object that its disk cannot read any more.
_UNREADABLE = {errno.EIO, errno.EUCLEAN, errno.EBADMSG}


class LocalStore:
    """Keeps the contract of :class:`contract.Store` in the directory ``root``; makes it when first written to.

    On NFS a repeated link request may report ``EEXIST`` for a link that its first attempt made, so the count of links
    of the temporary file decides who won. File systems without hard links (FAT, most SMB and some FUSE mounts) have no
    durable create-if-absent and are refused by the first ``create``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._folders: set[Path] = set()  # made durable by this process
        self._swept = False

    @property
    def window(self) -> int:
        return contract.NEAR

    @property
    def host(self) -> str:
        return ""

    def __repr__(self) -> str:
        return str(self._root)

    @property
    def root(self) -> Path:
        return self._root

    def create(self, key: str, data: contract.Data) -> None:
        target = self._path(key)
        with _translated(f"write {key} in {self._root}"):
            self._ensure(self._root / TEMPORARY)
            temporary = self._root / TEMPORARY / secrets.token_hex(16)
            try:
                _write(temporary, data)
                self._sweep_once(temporary)
                self._ensure(target.parent)
                self._link(temporary, target)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink()

    def read(self, key: str) -> bytes:
        with self._opened(key) as descriptor:
            return _read_exactly(descriptor, 0, os.fstat(descriptor).st_size)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._opened(key) as descriptor:
            return _read_exactly(descriptor, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((key, facts.st_size) for key, facts in self._found(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(f"delete {key} in {self._root}"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            self._remove_empty(path.parent)

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """The times of the last change of the inodes: linking sets them, and only the file system can, unlike the times
        of the content."""
        return ((key, facts.st_size, facts.st_ctime) for key, facts in self._found(prefix))

    def locks(self) -> None:
        return None

    def clock(self) -> float:
        """The time that the file system gives a new file: a server has a clock of its own."""
        with _translated(f"write in {self._root}"):
            self._ensure(self._root / TEMPORARY)
            with tempfile.NamedTemporaryFile(dir=self._root / TEMPORARY) as file:
                return os.fstat(file.fileno()).st_ctime

    def _path(self, key: str) -> Path:
        return self._root / contract.check_key(key)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        path = self._path(key)
        with _translated(f"read {key} in {self._root}", key):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise contract.Missing(f"{key} is missing in {self._root}.", object=key) from None
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _link(self, temporary: Path, target: Path) -> None:
        """Give the finished object its name, durably; ``Exists`` when the name is taken, durably too."""
        try:
            self._link_in_folder(temporary, target)
        except FileExistsError:
            durable.sync_folder(target.parent)  # whoever took the name may not have come to it
            if temporary.stat().st_nlink < 2:
                key = str(target.relative_to(self._root))
                raise contract.Exists(f"{key} exists already in {self._root}.", object=key) from None
        except OSError as error:
            raise self._refusal(error, target) from error
        else:
            durable.sync_folder(target.parent)

    def _link_in_folder(self, temporary: Path, target: Path) -> None:
        try:
            os.link(temporary, target)
        except FileNotFoundError:
            self._forget(target.parent)  # another process removed it while it was empty
            self._ensure(target.parent)
            os.link(temporary, target)

    def _refusal(self, error: OSError, target: Path) -> Exception:
        if error.errno in _NO_HARD_LINKS:
            return errors.Unsupported(
                f"{self._root} is on a file system without hard links ({error.strerror}), where a backup could be "
                "overwritten or lost in a power cut. Use a directory on ext4, XFS, Btrfs, ZFS or NFS."
            )
        if error.errno == errno.EXDEV:
            return errors.Unsupported(f"{target.parent} and {self._root} must be on one file system, and are not.")
        return error

    def _ensure(self, folder: Path) -> None:
        """Make the folder and its parents, and their names durable.

        Once a process, even if the folder is there: whoever made it may not have come to its fsync.
        """
        with self._lock:
            if folder in self._folders:
                return
        if folder == self._root:
            _make_with_parents(folder)
        else:
            self._ensure(folder.parent)
            _make(folder)
        with self._lock:
            self._folders.add(folder)

    def _forget(self, folder: Path) -> None:
        with self._lock:
            self._folders.discard(folder)

    def _remove_empty(self, folder: Path) -> None:
        """Nested folders come and go with their objects; those directly under the root stay."""
        while folder != self._root and folder.parent != self._root:
            self._forget(folder)
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _sweep_once(self, fresh: Path) -> None:
        """Remove what writers left that died long ago, by the clock of the file system, not ours."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        limit = fresh.stat().st_mtime - ABANDONED_AFTER
        for path in fresh.parent.iterdir():
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < limit:
                    path.unlink()

    def _found(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        folder, _, start = prefix.rpartition("/")
        with _translated(f"list {self._root / folder}"):
            yield from self._walk(folder, start)

    def _walk(self, folder: str, start: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            entries = list(os.scandir(self._root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not entry.name.startswith(start) or name == TEMPORARY:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(name, "")
            else:
                with contextlib.suppress(FileNotFoundError):
                    yield name, entry.stat()


def _make(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    durable.sync_folder(folder.parent)


def _make_with_parents(folder: Path) -> None:
    if not folder.exists():
        _make_with_parents(folder.parent)
        _make(folder)
        return
    with contextlib.suppress(PermissionError):  # somebody else's folder: its name is theirs to keep
        durable.sync_folder(folder.parent)


def _write(path: Path, data: contract.Data) -> None:
    """A new file, durable but for its name."""
    view = memoryview(data).cast("B")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if len(view) >= WORTH_DIRECT:
            view = _write_direct(descriptor, view)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_direct(descriptor: int, view: memoryview) -> memoryview:
    """Write whole pages of ``view`` past the page cache: copying into it costs as much as a third of compressing.

    Returns what is left: all of it where the file system refuses that, or the memory is not aligned.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        while len(view) >= _PAGE:
            view = view[os.write(descriptor, view[: len(view) // _PAGE * _PAGE]) :]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return view


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    """``length`` bytes, or up to the end of the file."""
    data = os.pread(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    pieces = [data]
    while data and (length := length - len(data)):
        offset += len(data)
        data = os.pread(descriptor, length, offset)
        pieces.append(data)
    return b"".join(pieces)


@contextlib.contextmanager
def _translated(action: str, reading: str | None = None) -> Iterator[None]:
    """Errors of the system as errors for the user. ``reading``: the key of the object that is being read."""
    try:
        yield
    except OSError as error:
        raise _translate(action, reading, error) from error


def _translate(action: str, reading: str | None, error: OSError) -> errors.HeadstartError:
    failed = f"Could not {action}: {error.strerror or error}."
    if error.errno in _FULL:
        return errors.NoSpace(f"{failed} Make room there, or use another place.")
    if error.errno in _NOT_ALLOWED:
        return errors.StoreFailed(f"{failed} Run as a user who may, or check how it is mounted.")
    if error.errno == errno.ENOENT:
        return errors.StoreFailed(f"{failed} Check that it is still mounted.")
    if reading and error.errno in _UNREADABLE:
        return errors.Damaged(f"{failed} Check the disk below it.", object=reading)
    return errors.StoreFailed(failed)
