"""Which QEMU a domain runs in: libvirt tells only of the one that is installed."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

#: libvirt's driver for QEMU keeps the process ids of its domains here.
PID_FILES = Path("/run/libvirt/qemu")
SECONDS = 10.0


def version(name: str, emulator: str) -> int:
    """Of the program that runs the domain, also if another one was installed since; of ``emulator`` for one that is
    off. Major * 1,000,000 + minor * 1,000 + release; 0 if it cannot be told."""
    file = PID_FILES / f"{name}.pid"
    try:
        return _told(f"/proc/{int(file.read_text())}/exe", file.stat().st_mtime_ns)
    except FileNotFoundError:
        return _told(emulator, 0)
    except (OSError, ValueError):
        return 0


def pid(name: str) -> int | None:
    """Of the QEMU that runs the domain; None if it cannot be told, as of a session's."""
    try:
        return int((PID_FILES / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=64)
def _told(program: str, _started: int) -> int:
    """Asked once for each start: a look at a VM is on the way of every step."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    return int(found[1]) * 1_000_000 + int(found[2]) * 1_000 + int(found[3]) if found else 0
