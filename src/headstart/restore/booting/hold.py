"""A guest that stands still while its disks go over to their new images."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from headstart import errors

_log = logging.getLogger(__name__)

#: QEMU's storage may hang in the middle of a stop, which takes effect when it is back.
PATIENCE_SECONDS = 3600.0
_RETRY_SECONDS = 1.0


class Guest(Protocol):
    """Of a VM that we started."""

    @property
    def ended(self) -> bool:
        """For certain."""

    @property
    def runs(self) -> bool:
        """It does, or would but for a request that failed; not where its owner has stopped it. Raises
        ``Unreachable``."""

    def stop(self) -> None:
        """Raises ``Unreachable`` where it may come yet."""

    def go_on(self) -> None:
        """Raises ``Unreachable`` or ``Busy`` where it can be tried again."""


class Hold:
    """One, for one move."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._held = False
        #: A disk has gone over, or may have: its overlay will not have what the guest writes from then on.
        self.gone_over = False

    def begin(self) -> None:
        if self._guest.runs:
            # Before it: one that is not answered may come yet.
            self._held = True
            self._guest.stop()

    def end(self, seconds: float = PATIENCE_SECONDS) -> None:
        """The guest goes on, if it was we who stopped it; tried again for so long as nobody answers. What hinders that
        in the end is raised."""
        deadline = time.monotonic() + seconds
        told = False
        while self._held:
            try:
                self._guest.go_on()
            except (errors.Unreachable, errors.Busy):
                if self._guest.ended or time.monotonic() > deadline:
                    raise
                if not told:
                    _log.warning("the guest stands still, and cannot be let go on yet; it is tried again and again")
                told = True
                time.sleep(_RETRY_SECONDS)
            else:
                self._held = False
