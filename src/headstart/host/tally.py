"""What this process, and others for its sake, took of the host: it is no load."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from headstart.load.bucket import Bucket
from headstart.load.machine import Own


class Tally:
    """For several threads. ``store``: through it goes what is sent to the store."""

    def __init__(self, store: Bucket) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._read = 0
        self._agents = 0.0

    def read(self, count: int) -> None:
        """Bytes of disks, by whomever."""
        with self._lock:
            self._read += count

    def agent(self, seconds: float) -> None:
        """CPU time of an agent in a guest: the host's as well."""
        with self._lock:
            self._agents += seconds

    def now(self) -> Own:
        """In all, so far."""
        with self._lock:
            return Own(time.process_time() + self._agents, float(self._read), _written(), float(self._store.passed))


def _written() -> float:
    """Bytes that this process had written to disks (proc(5), /proc/PID/io)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return float(line.split()[1])
    return 0.0


def between(before: Own, after: Own) -> Own:
    return Own(
        after.cpu_seconds - before.cpu_seconds,
        after.read_bytes - before.read_bytes,
        after.written_bytes - before.written_bytes,
        after.sent_bytes - before.sent_bytes,
    )
