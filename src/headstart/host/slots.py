"""How many VMs may do something at the same time: who came first goes first."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

#: Who waits asks so often whether still to wait.
ASK_SECONDS = 0.25


class Slots:
    """``count`` at a time. For several threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def resize(self, count: int) -> None:
        with self._changed:
            self._count = count
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def taken(self) -> int:
        return self._taken

    @contextlib.contextmanager
    def taking(self, beat: Callable[[], None]) -> Iterator[None]:
        """Wait for a turn. ``beat`` is called meanwhile, and may raise to give up."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            self._await(ticket, beat)
            yield
        finally:
            with self._changed:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                else:
                    self._taken -= 1
                self._changed.notify_all()

    def _await(self, ticket: object, beat: Callable[[], None]) -> None:
        while True:
            beat()
            with self._changed:
                if self._taken < self._count and self._queue[0] is ticket:
                    self._queue.popleft()
                    self._taken += 1
                    self._changed.notify_all()
                    return
                self._changed.wait(ASK_SECONDS)
