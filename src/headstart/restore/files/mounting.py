"""The files of a snapshot as a file system of this machine, by FUSE: read-only."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart import errors, plain
from headstart.restore.files.filetree import File, FileTree, is_name
from headstart.volumes.filesystem import TYPES, Details, Node

_log = logging.getLogger(__name__)

_DEVICE = Path("/dev/fuse")
#: Nothing ever changes: seconds for which the kernel need not ask again.
_CACHED = 3600
_FOLDER = {"st_mode": stat.S_IFDIR | 0o555, "st_nlink": 2}

Opener = Callable[[], FileTree]


class Forest:
    """Trees below names that may have slashes (``vda/1``), or one at the very top (an empty name)."""

    def __init__(self, openers: Mapping[str, Opener]) -> None:
        self._openers = {tuple(name.split("/")) if name else (): opener for name, opener in openers.items()}
        self._trees: dict[tuple[str, ...], FileTree] = {}
        self._lock = threading.Lock()

    def find(self, path: str) -> File | None:
        """None is a directory above the trees. Raises ``NotFound``, and what reading raises."""
        parts = tuple(part for part in path.split("/") if part)
        for name in self._openers:
            if parts[: len(name)] == name:
                return self._tree(name).find("/".join(parts[len(name) :]), follow=False)
        if any(name[: len(parts)] == parts for name in self._openers):
            return None
        raise errors.NotFound(path)

    def names(self, path: str) -> list[str]:
        """What is in a directory."""
        file = self.find(path)
        parts = tuple(part for part in path.split("/") if part)
        if file is None:
            return sorted({name[len(parts)] for name in self._openers if name[: len(parts)] == parts})
        depth = next(len(name) for name in self._openers if parts[: len(name)] == name)
        tree = self._trees[parts[:depth]]
        return [each.name for each in tree.files_in(file) if is_name(each.name)]

    def _tree(self, name: tuple[str, ...]) -> FileTree:
        with self._lock:
            if name not in self._trees:
                self._trees[name] = self._openers[name]()
            return self._trees[name]


class Served:
    """What the kernel asks, answered. Any thread may use it. Raises ``OSError``."""

    #: For the library: times in nanoseconds.
    use_ns = True

    def __init__(self, forest: Forest, ready: Callable[[], None]) -> None:
        self._forest = forest
        self._ready = ready
        self._open: dict[int, tuple[File, Details]] = {}
        self._handles = itertools.count(1)
        self.began = False

    def init(self, path: str) -> None:
        self.began = True
        self._ready()

    def getattr(self, path: str, handle: int | None = None) -> dict[str, Any]:
        with _as_errno(path):
            file = self._forest.find(path)
            return dict(_FOLDER) if file is None else _attributes(file.node)

    def readdir(self, path: str, handle: int) -> list[str]:
        with _as_errno(path):
            return [".", "..", *self._forest.names(path)]

    def readlink(self, path: str) -> str:
        return self._details(path).target

    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        with _as_errno(path):
            file = self._file(path)
            handle = next(self._handles)
            self._open[handle] = (file, file.details())
            return handle

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        with _as_errno(path):
            file, details = self._open[handle]
            return file.system.read(details, offset, size)

    def release(self, path: str, handle: int) -> int:
        self._open.pop(handle, None)
        return 0

    def listxattr(self, path: str) -> list[str]:
        with _as_errno(path):
            return [] if self._forest.find(path) is None else list(self._details(path).xattrs)

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        with _as_errno(path):
            value = None if self._forest.find(path) is None else self._details(path).xattrs.get(name)
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return value

    def _details(self, path: str) -> Details:
        with _as_errno(path):
            return self._file(path).details()

    def _file(self, path: str) -> File:
        file = self._forest.find(path)
        if file is None:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return file


def mount(openers: Mapping[str, Opener], directory: Path, name: str, ready: Callable[[], None]) -> None:
    """Until it is unmounted, or SIGINT, SIGTERM or SIGHUP comes. ``ready`` is called when it can be used; ``name`` is
    what ``mount`` shows as its source. Raises ``Unsupported``, ``TargetRefused``."""
    fuse = _library()
    if not directory.is_dir():
        raise errors.TargetRefused(f"{directory} is no directory to mount at: make it.", target=str(directory))
    # The library takes what its own class has.
    served = type("Operations", (Served, fuse.Operations), {})(Forest(openers), ready)
    options = {
        "foreground": True,
        "ro": True,
        # What a guest says of owners and devices must mean nothing here.
        "nosuid": True,
        "nodev": True,
        "fsname": name.replace(",", "_"),
        "attr_timeout": _CACHED,
        "entry_timeout": _CACHED,
        "kernel_cache": True,
    }
    with _default_signals():
        try:
            fuse.FUSE(served, str(directory), **options)
        except RuntimeError as error:
            if not served.began:  # else it was ended by a signal
                raise errors.Unsupported(
                    f"{directory} could not be mounted: FUSE refused it ({error}). What it said stands above.",
                    target=str(directory),
                ) from None


def _library() -> Any:
    if not _DEVICE.exists():
        raise errors.Unsupported(f"There is no {_DEVICE}: this machine, or this container, has no FUSE.")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        raise errors.Unsupported("Mounting needs fusermount3: install the package fuse3.")
    try:
        import mfusepy
    except OSError:
        raise errors.Unsupported("Mounting needs libfuse: install the package fuse3.") from None
    return mfusepy


def _attributes(node: Node) -> dict[str, Any]:
    return {
        "st_mode": (TYPES[node.kind] or stat.S_IFREG) | node.mode,
        "st_nlink": node.links,
        "st_uid": node.uid,
        "st_gid": node.gid,
        "st_size": node.size,
        "st_atime": node.atime,
        "st_mtime": node.mtime,
        "st_ctime": node.ctime,
        "st_rdev": os.makedev(node.major, node.minor),
        "st_blocks": -(-node.size // 512),
    }


@contextlib.contextmanager
def _as_errno(path: str) -> Iterator[None]:
    try:
        yield
    except errors.NotFound:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    except errors.HeadstartError as error:
        _log.warning("%s: %s", plain.line(path), error)
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """libfuse ends in good order by those that nobody handles; ours would not be heard while it waits."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
