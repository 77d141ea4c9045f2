"""Being ended from outside: one way out, with everything put right."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """The first of these signals raises ``KeyboardInterrupt``. Those after it must not cut the cleaning up short.

    What the caller made us ignore (nohup, a shell's background job) stays ignored.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    heeded = [number for number in _ENDING if before[number] is not signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in heeded:
            # Not SIG_IGN: programs started from now on would inherit it.
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    for number in heeded:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])
