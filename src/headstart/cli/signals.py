"""Being ended from outside: one way out, with everything put right."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeAlias

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler: TypeAlias = Callable[[int, FrameType | None], None]

#: As ``Output.error`` tells ``errors.Interrupted``; here, because it must be at hand while modules are being loaded.
_STATUS = 130
_TEXT = b"headstart: Interrupted.\n"
_JSON = b'{"error": {"kind": "Interrupted", "exit_code": 130, "message": "Interrupted.", "facts": {}}}\n'


@contextlib.contextmanager
def as_exits(as_json: bool) -> Iterator[None]:
    """The first of these signals ends the process at once, while there is nothing to put right.

    No exception: it could come up, and be lost, anywhere within the loading of a module.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(2, _JSON if as_json else _TEXT)
        os._exit(_STATUS)

    with _handled(leave):
        yield


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """The first of these signals raises ``KeyboardInterrupt``. Those after it must not cut the cleaning up short."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _heeded():
            # Not SIG_IGN: programs started from now on would inherit it.
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextlib.contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _heeded()}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _heeded() -> list[signal.Signals]:
    """What the caller made us ignore (nohup, a shell's background job) stays ignored."""
    return [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
