"""Local space for what a point in time sets aside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from headstart import errors, units

#: Types in /proc/self/mountinfo that live on another machine: a hanging scratch file hangs all of QEMU.
NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs",
     "fuse.s3fs", "fuse.rclone", "lustre", "ocfs2", "gfs2"}
)  # fmt: skip
#: Never fill a file system to the last byte: others write there too.
MARGIN = 64 * units.MIB


def require(directory: Path, amount: int, what: str) -> None:
    """Raises ``NoSpace`` unless ``directory`` can take ``amount`` bytes more."""
    there = free(directory)
    if there < amount + MARGIN:
        raise errors.NoSpace(
            f"{what} may need {units.format_bytes(amount)}, and {directory} has"
            f" {units.format_bytes(there)} free. Make room, or name another local directory with --scratch.",
            needed=amount,
            free=there,
        )


def free(directory: Path) -> int:
    """Bytes that may be written there."""
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize


def require_local(directory: Path) -> None:
    """Raises ``Usage`` if the directory is on a network file system, or none."""
    try:
        kind = file_system_type(directory)
    except OSError as error:
        raise errors.Usage(f"{directory} cannot be used ({error.strerror}): name another --scratch.") from error
    if kind in NETWORK_TYPES:
        raise errors.Usage(
            f"{directory} is on a network file system ({kind}). A scratch file that hangs would hang the VM:"
            " name a directory on a local disk with --scratch."
        )


def create(path: Path, size: int) -> None:
    """A new file of zeroes that takes no room yet, for our eyes only. What a dead run left there is nobody's."""
    with _told(path):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(descriptor, size)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.NoSpace(
            f"{path} cannot be made ({error.strerror}). Make room, or name another local directory with --scratch."
        ) from error


def file_system_type(directory: Path) -> str:
    """The type of the file system that holds ``directory`` (proc(5), mountinfo); empty if unknown."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    mounts = [line.partition(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for before, _, after in mounts:
        if before.split()[2] == wanted and after:
            return after.split()[0]
    return _type_by_path(directory.resolve(), {before.split()[4]: after for before, _, after in mounts if after})


def _type_by_path(directory: Path, mounts: Mapping[str, str]) -> str:
    """Subvolumes of Btrfs have device numbers of their own. Mount points have their blanks as ``\\040``."""
    for folder in (directory, *directory.parents):
        found = mounts.get(str(folder).replace(" ", "\\040"))
        if found is not None:
            return found.split()[0]
    return ""


def flush(images: Iterable[Path]) -> None:
    """Write the host's cache of the images to disk, so that QEMU's own flush in ``stop`` is short."""
    for path in images:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
