"""Files of a snapshot into a directory, with all that the system lets us restore of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart import errors, plain
from headstart.restore.files import filetree
from headstart.restore.files.filetree import File, FileTree, Troubles
from headstart.restore.files.placing import Exists, Place
from headstart.volumes.confined import BrokenFileSystem
from headstart.volumes.filesystem import Details, Kind, Node

#: ``progress(bytes)``: so many of the sizes of all files are dealt with. May be called often.
Progress = Callable[[int], None]

_KINDS: dict[Kind, int] = {
    "fifo": stat.S_IFIFO,
    "character": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "socket": stat.S_IFSOCK,
}
_RUNS_AS = stat.S_ISUID | stat.S_ISGID
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: What a file system answers to attributes that it has no place for, though it is not full.
_NO_PLACE = {errno.ENOSPC, errno.E2BIG, errno.ERANGE}
_FORBIDDEN = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@dataclass
class Copied:
    """What came of it. ``data_bytes`` were written; the rest are holes."""

    files: int = 0
    directories: int = 0
    others: int = 0
    data_bytes: int = 0
    troubles: Troubles = field(default_factory=Troubles)
    #: What of how many files was not restored, by what it is.
    lacking: dict[str, int] = field(default_factory=dict)

    def lack(self, what: str) -> None:
        self.lacking[what] = self.lacking.get(what, 0) + 1

    def notes(self) -> list[str]:
        return [f"{what} ({count} file{'s' * (count > 1)})" for what, count in self.lacking.items()]


def copy(
    tree: FileTree, top: File, target: Path, name: str, copied: Copied, progress: Progress, *, force: bool = False
) -> None:
    """``top`` and all below it, as ``name`` in the directory ``target``. What cannot be read or made is told in
    ``copied.troubles``. Raises ``NoSpace``, and ``TargetRefused`` where nothing can be written at all."""
    try:
        place = Place(target, force=force)
    except OSError as error:
        raise _refused(target, error) from error
    with place:
        if not force and os.path.lexists(target / name):
            raise errors.TargetRefused(
                f"{plain.line(str(target / name))} exists and is not overwritten. Copy to another place, or overwrite "
                "files with --force.",
                target=str(target / name),
            )
        _Copy(tree, top, place, name, copied, progress).run(target)


class _Copy:
    def __init__(self, tree: FileTree, top: File, place: Place, name: str, copied: Copied, progress: Progress) -> None:
        self._tree = tree
        self._top = top
        self._place = place
        self._name = name
        self._copied = copied
        self._progress = progress
        self._made: dict[tuple[str, int], Sequence[str]] = {}

    def run(self, target: Path) -> None:
        refused: list[tuple[str, ...]] = []
        for step in self._tree.walk(self._top, self._copied.troubles):
            parts = (self._name, *filetree.relative(self._top, step.file))
            if any(parts[: len(above)] == above for above in refused):
                continue
            try:
                self._one(step, parts)
            except OSError as error:
                if error.errno in _FULL:
                    raise errors.NoSpace(
                        f"{target} is full: {plain.line(step.file.path)} and what comes after it were not copied. "
                        "Make room there, or copy to another place.",
                        target=str(target),
                    ) from error
                self._copied.troubles.add(step.file.path, error.strerror or str(error))
                refused += [parts] if step.file.node.kind == "directory" else []
            except (errors.Damaged, errors.Unsupported, BrokenFileSystem, Exists) as error:
                self._copied.troubles.add(step.file.path, str(error))
                refused += [parts] if step.file.node.kind == "directory" else []

    def _one(self, step: filetree.Step, parts: Sequence[str]) -> None:
        file, kind = step.file, step.file.node.kind
        if step.leaving:
            # Last: what is written into a directory changes its time, and its mode may forbid it.
            self._dress(self._place.enter(parts), file.details())
            return
        if kind == "directory":
            self._place.directory(parts)
            self._copied.directories += 1
            return
        if kind == "unknown":
            self._copied.troubles.add(file.path, "what it is cannot be told")
            return
        if file.node.links > 1 and file.identity in self._made:
            self._place.link(self._made[file.identity], parts)
        elif kind == "file":
            self._file(file, parts)
        elif kind == "symlink":
            self._symlink(file, parts)
        else:
            self._special(file, parts)
        self._made[file.identity] = parts
        if kind == "file":
            self._copied.files += 1
        else:
            self._copied.others += 1

    def _file(self, file: File, parts: Sequence[str]) -> None:
        details = file.details()
        with self._place.file(parts) as descriptor:
            os.truncate(descriptor, details.node.size)
            position = 0
            for start, content in file.system.content(details):
                _write(descriptor, start, content)
                self._copied.data_bytes += len(content)
                self._progress(start + len(content) - position)
                position = start + len(content)
            self._dress(descriptor, details)
            self._progress(details.node.size - position)

    def _symlink(self, file: File, parts: Sequence[str]) -> None:
        details = file.details()
        with self._place.symlink(details.target, parts) as path:
            self._dress(path, details)

    def _special(self, file: File, parts: Sequence[str]) -> None:
        node = file.node
        if node.kind in ("character", "block") and os.geteuid() != 0:
            self._copied.lack("only root can make devices: they were left out")
            return
        details = file.details()
        with self._place.special(_KINDS[node.kind] | 0o600, os.makedev(node.major, node.minor), parts) as path:
            self._dress(path, details)

    def _dress(self, made: int | Path, details: Details) -> None:
        """By a descriptor, or a path that leads to it and no further. Owner first, as changing it takes bits of the
        mode and capabilities away; times last."""
        for note in details.notes:
            self._copied.lack(note)
        node = details.node
        if os.geteuid() == 0:
            os.chown(made, node.uid, node.gid)
        elif (node.uid, node.gid) != (os.geteuid(), os.getegid()):
            self._copied.lack("only root can restore owners: they were not")
        if node.kind != "symlink":
            os.chmod(made, self._mode(node))  # noqa: PTH101 (or a descriptor)
        for name, value in details.xattrs.items():
            try:
                os.setxattr(made, name, value)
            except OSError as error:
                if error.errno == errno.ENOSPC and not os.statvfs(made).f_bavail:
                    raise
                if error.errno not in _FORBIDDEN | _NO_PLACE:
                    raise
                self._copied.lack(f"the system refused the extended attribute {name}")
        os.utime(made, ns=(node.atime, node.mtime))

    def _mode(self, node: Node) -> int:
        """A program that is setuid in the guest would run as whoever copies it. That its owner has the same number
        there changes nothing: it is another user."""
        if os.geteuid() == 0 or node.kind != "file" or not node.mode & _RUNS_AS:
            return node.mode
        self._copied.lack("only root can restore setuid and setgid: programs run as who starts them")
        return node.mode & ~_RUNS_AS


def _write(descriptor: int, start: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(descriptor, left, start)
        left, start = left[written:], start + written


def _refused(target: Path, error: OSError) -> errors.TargetRefused:
    return errors.TargetRefused(f"{target} cannot be written: {error.strerror}.", target=str(target))
