"""Waiting for a library that does not heed signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def interruptibly(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises. In the main thread a signal's handler runs, and may raise, while it waits:
    ``work`` goes on then, and nobody learns how it ended."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="request", daemon=True).start()
    return outcome.result()
