"""Programs that serve us as children."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator

END_SECONDS = 5.0
#: What comes to all of us at once: to whatever is in the foreground of a terminal, or from systemd to all that is in a
#: unit (the last one by its watchdog).
FOR_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGABRT)


@contextlib.contextmanager
def ours_to_end() -> Iterator[None]:
    """What is started in it does not hear signals that come to all of us: what we bring to its end may still need it.

    So SIGTERM does not end it. We do by SIGKILL; and when we are gone, the end of a pipe or the kernel has to.
    """
    # Blocked, and not ignored by the program: there is no moment at which it could be hit.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def end(process: subprocess.Popen[bytes], seconds: float = END_SECONDS) -> None:
    """In good order if it can be within these seconds, and in any case."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill(process)
