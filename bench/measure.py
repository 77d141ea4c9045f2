"""What a command costs: seconds, processor time, memory; and what it costs QEMU meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Between two looks at the peak of a process's memory. The kernel keeps it: only growth after the last look is missed.
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """``cpu_seconds``: user and system, of the command and its children. ``other_cpu_seconds``: of the process that
    was watched beside it. ``peak_bytes``: the largest resident set."""

    seconds: float
    cpu_seconds: float
    other_cpu_seconds: float
    peak_bytes: int
    stdout: str


class Failed(Exception):
    """A command did not end with status 0."""


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, beside: int) -> Cost:
    """Run to the end; ``beside`` is the process id of the QEMU that it works with."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        before = _cpu_seconds(beside)
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        with _Peak(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode != 0:
            raise Failed(f"{' '.join(map(str, command))} ended with {process.returncode}: {stderr.read()}")
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(seconds, cpu, _cpu_seconds(beside) - before, peak.bytes, stdout.read())


class _Peak:
    """Watches the peak of a process's memory. (``ru_maxrss`` is no help: a child begins with its parent's.)"""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            while not self._ended.wait(LOOK_SECONDS):
                found = re.search(r"VmHWM:\s*(\d+) kB", self._status.read_text())
                self.bytes = int(found.group(1)) * 1024 if found else self.bytes

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._ended.set()
        self._thread.join()


def _cpu_seconds(pid: int) -> float:
    """proc(5): utime and stime are fields 14 and 15; field 2, in brackets, may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
