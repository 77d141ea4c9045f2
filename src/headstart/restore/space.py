"""Whether a file system has room for what is about to be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from headstart import errors, units


def check(needs: Iterable[tuple[Path, int]]) -> None:
    """Folders and the bytes that each gets; raises ``NoSpace`` for a file system with less than its folders need."""
    total: dict[int, tuple[Path, int]] = {}
    for folder, size in needs:
        device = folder.stat().st_dev
        _, before = total.get(device, (folder, 0))
        total[device] = (folder, before + size)
    for folder, size in total.values():
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if size > free:
            raise errors.NoSpace(
                f"{folder} has {units.format_bytes(free)} free, and the restore needs {units.format_bytes(size)}. "
                "Make room there, or restore to another place.",
                folder=str(folder),
                free=free,
                needed=size,
            )
