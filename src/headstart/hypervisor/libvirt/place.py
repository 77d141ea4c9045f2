"""Where QEMU puts a job's socket and scratch files: it runs as another user, whom we let in there and nowhere else."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from headstart import errors

#: ``sun_path`` of unix(7), less the terminating zero.
SOCKET_PATH_LIMIT = 107


def require_local(uri: str) -> None:
    """Sockets and files are on this host. Raises ``Unsupported``."""
    scheme, _, rest = uri.partition("://")
    if scheme and rest and not scheme.startswith("qemu"):
        raise errors.Unsupported(f"{uri} is not QEMU: Headstart needs its dirty bitmaps.")
    if rest.partition("/")[0]:
        raise errors.Unsupported(f"{uri} is another host: run headstart there, with qemu:///system.")


class Place:
    """The folder of one VM. Whatever a dead run left in it is nobody's."""

    def __init__(self, scratch: Path, label: str) -> None:
        self.scratch = scratch
        self.folder = scratch / f"{label}.libvirt"
        self.socket = self.folder / "nbd"
        #: Where image files are served.
        self.images = scratch / f"{label}.images"
        #: Exists while a domain runs that was off before us; tells which.
        self.started = scratch / f"{label}.started"
        #: Exists while its guest may be frozen by us through qga; tells which.
        self.frozen = scratch / f"{label}.frozen"
        if len(str(self.socket)) > SOCKET_PATH_LIMIT:
            raise errors.Usage(
                f"The scratch directory's path is too long for a socket: {self.socket}. Choose a shorter --scratch."
            )

    def file(self, disk: str) -> Path:
        return self.folder / f"scratch-{disk}"

    def open(self, owner: tuple[int, int] | None) -> None:
        """Make it, for QEMU (user and group) to write into. Raises ``Usage``."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        give(self.folder, owner)

    def leftovers(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def close(self) -> None:
        for path in self.leftovers():
            path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.folder.rmdir()


def give(folder: Path, owner: tuple[int, int] | None) -> None:
    """A folder of ours to QEMU's user and group, who has to get there. Raises ``Usage``."""
    if owner is None or owner[0] in (0, os.geteuid()):
        return
    for above in folder.parents:
        if not _passable(above.stat(), owner):
            raise errors.Usage(
                f"QEMU runs as user {owner[0]} and cannot get into {above}, where its scratch files are to be:"
                f" 'chmod o+x {above}', or name another directory with --scratch."
            )
    try:
        os.chown(folder, *owner)
    except OSError as error:
        raise errors.Usage(
            f"{folder} cannot be given to QEMU's user {owner[0]}: {error.strerror}. Run as root."
        ) from error


def _passable(facts: os.stat_result, owner: tuple[int, int]) -> bool:
    user, group = owner
    if facts.st_uid == user:
        return bool(facts.st_mode & stat.S_IXUSR)
    if facts.st_gid == group:
        return bool(facts.st_mode & stat.S_IXGRP)
    return bool(facts.st_mode & stat.S_IXOTH)
