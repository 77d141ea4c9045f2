"""Making files in a directory, whoever else works there, and whatever the names and links of a guest say.

Every step goes from one open directory to the next, and follows no link: what is written stays below where it began. A
file gets its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headstart import errors

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_NAMELESS = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}


class Place:
    """A directory to write into, and the one below it that is open at the time. A context manager.

    Methods take the names of directories from the top on, and raise ``OSError``; ``Exists`` for what must not be
    overwritten."""

    def __init__(self, top: Path, *, force: bool) -> None:
        """``force``: files that are there already are replaced."""
        self._force = force
        self._top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._current = self._top
        self._at: tuple[str, ...] = ()

    def enter(self, parts: Sequence[str]) -> int:
        """The descriptor of a directory, which stays open until the next is entered."""
        wanted = tuple(parts)
        if wanted == self._at:
            return self._current
        below = self._at == wanted[: len(self._at)]
        names = wanted[len(self._at) :] if below else wanted
        opened = os.dup(self._current if below else self._top)
        try:
            for name in names:
                following = os.open(name, _DIRECTORY, dir_fd=opened)
                os.close(opened)
                opened = following
        except BaseException:
            os.close(opened)
            raise
        self._leave()
        self._current, self._at = opened, wanted
        return opened

    def directory(self, parts: Sequence[str]) -> int:
        """Make one that only its owner can use, or take the one that is there; and enter it."""
        above = self.enter(parts[:-1])
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=above)
        except FileExistsError:
            found = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise Exists(parts) from None
        return self.enter(parts)

    @contextlib.contextmanager
    def file(self, parts: Sequence[str]) -> Iterator[int]:
        """A new file, to be written while it has no name; it gets it if all went well."""
        above = self.enter(parts[:-1])
        if not self._force and _is_there(above, parts[-1]):
            raise Exists(parts)
        descriptor, name = _nameless(above)
        try:
            yield descriptor
            # Another directory may have been entered meanwhile only by a mistake of ours.
            if name is None:
                self._give(f"/proc/self/fd/{descriptor}", None, parts, follow=True)
            else:
                self._give(name, above, parts)
        finally:
            os.close(descriptor)
            if name is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=above)

    def link(self, existing: Sequence[str], parts: Sequence[str]) -> None:
        """Another name of a file that was made here."""
        source = os.dup(self.enter(existing[:-1]))
        try:
            self._give(existing[-1], source, parts)
        finally:
            os.close(source)

    @contextlib.contextmanager
    def symlink(self, target: str, parts: Sequence[str]) -> Iterator[Path]:
        """Yields a path that leads to it, and nowhere else whatever becomes of its name."""
        above = self.enter(parts[:-1])
        self._make(above, parts, lambda name: os.symlink(target, name, dir_fd=above))
        with _held(above, parts[-1], stat.S_IFLNK, 0) as path:
            yield path

    @contextlib.contextmanager
    def special(self, mode: int, device: int, parts: Sequence[str]) -> Iterator[Path]:
        """A fifo, device or socket. Yields what ``symlink`` does."""
        above = self.enter(parts[:-1])
        self._make(above, parts, lambda name: os.mknod(name, mode, device, dir_fd=above))
        with _held(above, parts[-1], stat.S_IFMT(mode), device) as path:
            yield path

    def _make(self, above: int, parts: Sequence[str], make: Callable[[str], None]) -> None:
        try:
            make(parts[-1])
        except FileExistsError:
            if not self._force:
                raise Exists(parts) from None
            name = _temporary()
            make(name)
            self._replace(name, above, parts)

    def _give(self, source: str, folder: int | None, parts: Sequence[str], *, follow: bool = False) -> None:
        above = self.enter(parts[:-1])
        try:
            os.link(source, parts[-1], src_dir_fd=folder, dst_dir_fd=above, follow_symlinks=follow)
        except FileExistsError:
            if not self._force:
                raise Exists(parts) from None
            name = _temporary()
            os.link(source, name, src_dir_fd=folder, dst_dir_fd=above, follow_symlinks=follow)
            self._replace(name, above, parts)

    def _replace(self, name: str, above: int, parts: Sequence[str]) -> None:
        try:
            os.replace(name, parts[-1], src_dir_fd=above, dst_dir_fd=above)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=above)
            if error.errno == errno.EISDIR:
                raise Exists(parts) from None
            raise
        with contextlib.suppress(FileNotFoundError):  # a link onto another name of the same file does nothing
            os.unlink(name, dir_fd=above)

    def _leave(self) -> None:
        if self._current != self._top:
            os.close(self._current)
        self._current, self._at = self._top, ()

    def close(self) -> None:
        self._leave()
        os.close(self._top)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


class Exists(errors.TargetRefused):
    """There is something of that name."""

    def __init__(self, parts: Sequence[str]) -> None:
        super().__init__(
            "it is there already, and not overwritten: copy to another place, or overwrite files with --force",
            target="/".join(parts),
        )


def _is_there(above: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _held(above: int, name: str, kind: int, device: int) -> Iterator[Path]:
    """A path to what was just made under a name. Whoever may write to the directory may have put something else there
    meanwhile: what could be more than they may change themselves raises ``OSError``."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        found = os.fstat(descriptor)
        other_device = kind in (stat.S_IFCHR, stat.S_IFBLK) and found.st_rdev != device
        if stat.S_IFMT(found.st_mode) != kind or other_device or found.st_nlink > 1:
            raise OSError(errno.EEXIST, "somebody else has put something in its place while it was made")
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _nameless(above: int) -> tuple[int, str | None]:
    """A file without a name, which nothing leaves behind; or with one, where the system has no such files."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=above), None
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    name = _temporary()
    return os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=above), name


def _temporary() -> str:
    return f".headstart-{secrets.token_hex(8)}.part"
