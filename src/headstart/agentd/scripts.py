"""Programs of the guest's owner that are called around a freeze: ``NAME freeze`` before, ``NAME thaw`` after."""

import os
import signal
import time
from typing import Callable, List

FOLDER = "/etc/headstart/freeze.d"
#: How long one may take.
SECONDS = 5.0
#: What editors and packagers leave in such a folder.
_LEFTOVERS = ("~", ".bak", ".sample", ".rpmnew", ".rpmorig", ".rpmsave", ".dpkg-dist", ".dpkg-new", ".dpkg-old")
_POLL_SECONDS = 0.01


def found() -> List[str]:
    """In the order of their names."""
    try:
        names = sorted(os.listdir(FOLDER))
    except OSError:
        return []
    paths = [os.path.join(FOLDER, name) for name in names if not name.startswith(".") and not name.endswith(_LEFTOVERS)]
    return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]


def run(path: str, word: str, stopped: Callable[[], bool]) -> str:
    """Why it failed; empty if it did not. Killed when it takes too long, or when ``stopped``."""
    process = os.fork()
    if process == 0:
        _become(path, word)
    end = time.monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return "" if status == 0 else "%s %s %s" % (path, word, _told(status))
        if time.monotonic() > end or stopped():
            _kill(process)
            return "%s %s did not end in time" % (path, word)
        time.sleep(_POLL_SECONDS)


def _become(path: str, word: str) -> None:
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execv(path, [path, word])
    finally:
        os._exit(127)


def _kill(process: int) -> None:
    try:
        # Its children too; before setsid it has no group of its own.
        os.killpg(process, signal.SIGKILL)
    except OSError:
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def _told(status: int) -> str:
    if os.WIFEXITED(status):
        return "ended with status %d" % os.WEXITSTATUS(status)
    return "was ended by signal %d" % os.WTERMSIG(status)
