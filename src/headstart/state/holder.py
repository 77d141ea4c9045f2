"""Locks of a state's directory, and who holds them.

A lock is the kernel's (flock): it ends with its holder, however that dies, and never before. Its file says who the
holder is, for whoever comes second; what it says of a holder that is dead means nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from headstart import errors

_POLL_SECONDS = 0.05
_LONGEST_NOTE = 4096


@dataclass(frozen=True, slots=True)
class Holder:
    """``since`` in seconds since 1970. A release before this one noted its process id alone."""

    pid: int
    verb: str = ""
    since: float = 0.0
    host: str = ""

    @property
    def process(self) -> str:
        return f"process {self.pid}" if self.pid else "process unknown"

    @property
    def told(self) -> str:
        """What it does, since when, where; a sentence, or nothing."""
        parts = [self.verb] if self.verb else []
        if self.since:
            parts.append(f"since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.since))}")
        if self.host:
            parts.append(f"on host {self.host}")
        stands = f" That process is stopped: 'kill -CONT {self.pid}' lets it go on." if self.stopped else ""
        return (f" ({', '.join(parts)})" if parts else "") + "." + stands

    @property
    def stopped(self) -> bool:
        """By a signal; as far as it can be seen from here (proc(5), the state in ``stat``)."""
        if self.host != socket.gethostname():
            return False
        try:
            return Path(f"/proc/{self.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "T"
        except (OSError, IndexError):
            return False


@contextlib.contextmanager
def held(path: Path, verb: str, seconds: float, refusal: Callable[[Holder], errors.Locked]) -> Iterator[None]:
    """Inside, the lock is ours. Who holds it for longer than ``seconds`` is told to ``refusal``, which is raised; else
    raises ``NoSpace`` and ``Usage`` where its file cannot be made."""
    with _opened(path) as file:
        _take(file, seconds, refusal)
        note = json.dumps(asdict(Holder(os.getpid(), verb, time.time(), socket.gethostname())))
        # On a full disk nobody is told who we are, and that is all.
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), note.encode())
        yield


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a+")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.NoSpace(f"{path} cannot be made: {error.strerror}. Make room there.") from error
        raise errors.Usage(
            f"{path} cannot be used: {error.strerror}. Run as a user who may write there, or name another --state."
        ) from error


def _take(file: IO[str], seconds: float, refusal: Callable[[Holder], errors.Locked]) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                continue
            file.seek(0)
            raise refusal(parse(file.read(_LONGEST_NOTE))) from error


def parse(text: str) -> Holder:
    """What a lock's file says. One that was read while it was written says nothing: process 0."""
    with contextlib.suppress(ValueError):
        said = json.loads(text)
        if isinstance(said, int):
            return Holder(said)
        if isinstance(said, dict) and isinstance(said.get("pid"), int):
            since = said.get("since")
            return Holder(
                said["pid"],
                str(said.get("verb", "")),
                float(since) if isinstance(since, int | float) else 0.0,
                str(said.get("host", "")),
            )
    return Holder(0)
