"""Looking after a booted VM while its disks are served.

A request that failed holds the guest (``rerror=stop``, ``werror=stop``): it does not notice that the store was away,
or the disk below the overlays full. It is let go on again and again, until what it waits for is there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from headstart import errors
from headstart.restore.booting.hold import Hold
from headstart.restore.serving.serving import Serving

_log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
#: After Ctrl-C, where what the guest writes is kept.
POWER_OFF_SECONDS = 30.0
_POLL_SECONDS = 0.2
#: Bytes of a console that are kept.
CONSOLE_LIMIT = 4 << 20
#: What ``st_blocks`` counts.
_SECTOR = 512
#: QEMU's status of a VM that a failed request holds.
HELD = "io-error"
_TOLD = {
    HELD: "the guest stands still: a request to a disk failed (the repository is away or damaged, or there is no"
    f" room for what it writes). It goes on as soon as it can, which is tried every {RETRY_SECONDS:.0f} s",
    "guest-panicked": "the guest's kernel has failed",
    "internal-error": "QEMU has stopped the VM for an error of its own",
    "paused": "somebody has stopped the VM by its monitor",
}


_GO_ON = "Let it go on when that answers: 'cont' on its monitor, or 'virsh resume'."


class Running(Protocol):
    """A VM that we started."""

    @property
    def status(self) -> str:
        """In QEMU's words; empty when it has ended."""

    def resume(self) -> None: ...

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within this time."""


class Attendance:
    def __init__(self, instance: Running, served: Serving, consoles: Iterable[Path] = ()) -> None:
        """``consoles``: files that get what the guest writes."""
        self._instance = instance
        self._served = served
        self._consoles = tuple(consoles)
        self._status = ""
        self._tried = 0.0

    @property
    def trouble(self) -> str:
        """Why the guest does not run, as it was seen last; empty if it does."""
        return _TOLD.get(self._status, "")

    def look(self) -> None:
        """Raises ``Unreachable`` if the disks are not served any longer."""
        self._served.wait(0)
        for path in self._consoles:
            _cut(path)
        status = self._instance.status
        if status != self._status and status in _TOLD:
            _log.warning("%s", _TOLD[status])
            self._tried = time.monotonic()
        elif status == HELD and time.monotonic() - self._tried > RETRY_SECONDS:
            self._instance.resume()
            self._tried = time.monotonic()
            return
        elif status == "running" and self._status == HELD:
            _log.warning("the guest goes on")
        self._status = status

    def until_the_end(self, beat: Callable[[], bool] = lambda: False) -> None:
        """Until QEMU ends, or ``beat``, which is called again and again, says so."""
        while not self._instance.wait(_POLL_SECONDS):
            self.look()
            if beat():
                return


def _cut(path: Path) -> None:
    """What the guest has written there is gone where it is much: the files are in memory, as a rule. Whoever writes to
    it goes on where it was, behind a hole. The folder may be QEMU's, whose links are not followed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_blocks * _SECTOR > CONSOLE_LIMIT:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


class Ending(Protocol):
    """A VM that we started, or left to itself."""

    @property
    def status(self) -> str: ...

    @property
    def stays(self) -> bool:
        """When we end."""

    def power_off(self, seconds: float) -> bool:
        """As by the power button. Whether it has ended within this time."""


def leave(instance: Ending, hold: Hold, *, kept: bool) -> None:
    """The user ends us, in the middle of a move or not. ``kept``: what the guest writes outlives the VM."""
    if instance.stays:
        try:
            hold.end(0)
        except errors.HeadstartError as error:
            # Who hangs forgets what it was ordered when we are gone.
            _log.warning("the guest has moved, and stands still: %s %s", error, _GO_ON)
    elif kept and instance.status == "running":
        instance.power_off(POWER_OFF_SECONDS)
