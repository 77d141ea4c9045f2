"""Where disks arrive: who expects one says so by its token, and whoever brings it finds them by that."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator

from headstart.appliance.link import Lost

#: From the word that a disk may be brought until it is there.
ARRIVAL_SECONDS = 15.0


class Counter:
    """Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected: dict[str, queue.SimpleQueue[socket.socket]] = {}

    def expect(self, token: str) -> None:
        with self._lock:
            self._expected[token] = queue.SimpleQueue()

    def bring(self, token: str, link: socket.socket) -> bool:
        """Whether it is expected; then ``link`` is theirs."""
        with self._lock:
            place = self._expected.get(token)
            if place is not None and place.empty():
                place.put(link)
                return True
        return False

    @contextlib.contextmanager
    def taken(self, token: str, seconds: float = ARRIVAL_SECONDS) -> Iterator[socket.socket]:
        """What was brought. Raises ``Lost`` if nothing comes. Nobody brings anything by this token afterwards."""
        with self._lock:
            place = self._expected.get(token)
        try:
            if place is None:
                raise queue.Empty
            link = place.get(timeout=seconds)
        except queue.Empty:
            raise Lost("The disk that was announced has not come.") from None
        finally:
            self.forget(token)
        yield link

    def forget(self, token: str) -> None:
        """What was brought and nobody has taken is closed."""
        with self._lock:
            place = self._expected.pop(token, None)
        if place is not None:
            with contextlib.suppress(queue.Empty):
                place.get_nowait().close()
