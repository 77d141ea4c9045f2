"""The folder of a booted VM's sockets, one for each name: found again by everybody, had by one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from headstart import errors
from headstart.hypervisor.qemu import offline
from headstart.restore import runfolder

#: In the folder; locked by the process that boots.
_LOCK = "lock"


def folder_of(name: str, environment: Mapping[str, str]) -> Path:
    """Where sockets belong."""
    return (runfolder.path(environment) or Path(f"/tmp/headstart-{os.geteuid()}")) / "vm" / name


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """While a VM is being booted, and served. Raises ``Locked`` when one of this name is there. It is emptied before,
    of what one that was killed left, and afterwards, unless the VM runs on."""
    try:
        runfolder.ensure(os.environ)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise errors.Usage(f"The folder {folder} for the VM's sockets cannot be used: {error.strerror}.") from error
    try:
        _lock(descriptor, folder)
        if offline.listens(folder / "qmp"):
            raise _taken(folder, "a VM that was booted runs there")
        _clear(folder)
        try:
            yield
        finally:
            if not offline.listens(folder / "qmp"):  # else it runs on
                _clear(folder)
    finally:
        os.close(descriptor)


def clear(folders: Iterable[Path]) -> None:
    """Away with the overlays of VMs whose process was killed, and who have ended with that; by name, as ``folder_of``
    has it. One whose QEMU is still about to end is left for the next time."""
    for folder in folders:
        with contextlib.suppress(errors.HeadstartError, OSError), claimed(folder_of(folder.name, os.environ)):
            shutil.rmtree(folder, ignore_errors=True)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(folder, "another 'headstart boot' is at work there") from None


def _taken(folder: Path, why: str) -> errors.Locked:
    return errors.Locked(
        f"There is a booted VM of the name {folder.name!r} already ({folder}): {why}. End it, or take another --name.",
        vm=folder.name,
    )


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()
