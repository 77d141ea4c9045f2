"""The folder for what lives as long as the system runs: short, as paths of sockets must be."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

_SYSTEM = Path("/run/headstart")


def path(environment: Mapping[str, str]) -> Path | None:
    """The system's for root, else the user's (XDG Base Directory Specification); None: there is none."""
    if os.geteuid() == 0:
        return _SYSTEM
    own = environment.get("XDG_RUNTIME_DIR", "")
    return Path(own) / "headstart" if own else None


def ensure(environment: Mapping[str, str]) -> Path | None:
    """Made, where it is not there. Raises ``OSError``.

    Others may pass through root's: QEMU runs as another user, and what is in it guards itself."""
    folder = path(environment)
    if folder is None:
        return None
    mode = 0o755 if folder == _SYSTEM else 0o700
    folder.mkdir(mode=mode, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) != mode:
        folder.chmod(mode)
    return folder
