"""A guest that was booted from its backup: its control, what serves it, and its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit import control

BOOT_SECONDS = 90.0


@contextlib.contextmanager
def guest_at(socket: Path) -> Iterator[control.Control]:
    with contextlib.closing(control.Control(socket)) as found:
        found.wait_ready(BOOT_SECONDS)
        yield found


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.05)


def served_by(told: Any) -> list[int]:
    """nbdkits that serve this VM."""
    socket = str(Path(told["monitor"]).with_name("nbd")).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"nbdkit") and socket in words:
                found.append(int(path.parent.name))
    return found
