"""Who is connected to a Unix socket, as the kernel tells it (sock_diag(7), through ``ss``)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SECONDS = 3.0
#: Local path and inode, the other end's path and inode, ``users:((NAME,pid=PID,fd=FD),...)``.
_LINE = re.compile(r"u_str\s+ESTAB\s+\d+\s+\d+\s+(.+?)\s+(\d+)\s+(.+?)\s+(\d+)\s*(?:users:\((.*)\))?\s*")
_USER = re.compile(r'\("((?:[^"\\]|\\.)*)",pid=(\d+)')


def clients(path: Path) -> list[str]:
    """``process PID (NAME)`` for each client that the server at ``path`` has taken; empty where that cannot be seen."""
    try:
        said = subprocess.run(["ss", "-xpnH"], capture_output=True, text=True, timeout=_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse(said, {str(path), str(path.resolve())})


def parse(listing: str, paths: set[str]) -> list[str]:
    ends: dict[str, str] = {}
    others: list[str] = []
    for line in listing.splitlines():
        if found := _LINE.fullmatch(line):
            local, inode, _, other, users = found.groups()
            ends[inode] = users or ""
            if local in paths:
                others.append(other)
    return list(dict.fromkeys(each for other in others for each in _users(ends, other)))


def _users(ends: Mapping[str, str], inode: str) -> list[str]:
    return [f"process {pid} ({name})" for name, pid in _USER.findall(ends.get(inode, ""))]
