"""The locks of an immutable repository: once a day, what new snapshots share with older ones is locked longer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from headstart import errors
from headstart.host import log
from headstart.repository import Repository, immutable

_log = logging.getLogger("headstart.host")

EVERY_SECONDS = 24 * 3600.0


class Locksmith:
    """Works in a thread of its own: the next round need not wait. What fails is tried again after the next backup."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._done: float | None = None

    def backed_up(self, repo: Repository) -> None:
        """There is a new snapshot."""
        with self._lock:
            working = self._thread is not None and self._thread.is_alive()
            if not repo.promised_days or working or self._was_done():
                return
            self._thread = threading.Thread(target=self._work, args=(repo,), name="locksmith", daemon=True)
            self._thread.start()

    def join(self, seconds: float) -> bool:
        """Whether it is done with what it began."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def _was_done(self) -> bool:
        # A clock that was put back must not make it wait for longer than it ever does.
        return self._done is not None and self._done <= self._clock() < self._done + EVERY_SECONDS

    def _work(self, repo: Repository) -> None:
        begun = self._clock()
        try:
            done = immutable.extend(repo, begun)
        except errors.HeadstartError as error:
            _log.warning("%s", log.line(event="failed", verb="lock", kind=errors.kind(error), reason=str(error)))
            return
        self._done = begun
        _log.info("%s", log.line(event="locked", needed=done.needed, asked=done.asked, extended=done.extended))
