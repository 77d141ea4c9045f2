"""The QEMU process behind a monitor: what it was started with, and paths as it sees them."""

from __future__ import annotations

import shlex
from pathlib import Path


def command_line(pid: int | None) -> str:
    """How QEMU was started, quoted for a shell; empty if the kernel does not tell."""
    raw = _proc(pid, "cmdline")
    return shlex.join(part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")) if raw else ""


def _proc(pid: int | None, name: str) -> bytes:
    if pid is None:
        return b""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def resolve(pid: int | None, name: str) -> Path:
    """A file name of QEMU's, relative to its working directory."""
    path = Path(name)
    if path.is_absolute() or pid is None:
        return path
    try:
        return Path(f"/proc/{pid}/cwd").readlink() / path
    except OSError:
        return path
