"""Shutting a VM down in good order, and starting it again as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from headstart import errors

_POLL_SECONDS = 0.1


class Power(Protocol):
    """Of one VM."""

    def runs(self) -> bool:
        """It is not off: its guest may be paused, too."""
        ...

    def require(self) -> None:
        """Raises what would keep it from being shut down, started, or from being another one afterwards."""
        ...

    def memory(self) -> str:
        """How the running VM was started, for ``recall`` in another process."""
        ...

    def recall(self, memory: str) -> None: ...

    def shut_down(self, seconds: float, *, force: bool) -> None:
        """Ask the guest to shut down, and wait until the VM is off. Where it is not after ``seconds``, take its power
        away with ``force``; else raise ``Busy``."""
        ...

    def start(self) -> str:
        """Start it as it was before ``shut_down``. Returns why its owner has to do that, empty if it was done."""
        ...


def wait(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it came to be so in this time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def still_up(seconds: float) -> errors.Busy:
    return errors.Busy(
        f"The guest did not shut down within {seconds:.0f} s. Nothing was changed. Shut it down yourself and try again,"
        " or use --force, which takes its power away."
    )
