"""Scratch files as nodes of QEMU."""

from __future__ import annotations

from pathlib import Path

from headstart import errors
from headstart.hypervisor import space
from headstart.wire.qmp import CommandFailed, Qmp

REMEDY = (
    "Run Headstart as the user that QEMU runs as, with a --scratch that is theirs, or QEMU as root. Where AppArmor or"
    " SELinux confines QEMU, allow it this directory."
)


def add(qmp: Qmp, path: Path, size: int, node: str) -> None:
    """A new file of zeroes that takes no room yet, and a node of QEMU on it."""
    space.create(path, size)
    try:
        qmp.execute("blockdev-add", driver="file", node_name=node, filename=str(path))
    except CommandFailed as error:
        raise errors.Unreachable(f"QEMU cannot open the scratch file {path}: {error.text}. {REMEDY}") from error
