"""Scratch files as nodes of QEMU."""

from __future__ import annotations

from pathlib import Path

from headstart import errors
from headstart.hypervisor import space
from headstart.wire.qmp import CommandFailed, Qmp


def add(qmp: Qmp, path: Path, size: int, node: str) -> None:
    """A new file of zeroes that takes no room yet, and a node of QEMU on it."""
    space.create(path, size)
    try:
        qmp.execute("blockdev-add", driver="file", node_name=node, filename=str(path))
    except CommandFailed as error:
        raise errors.Unreachable(
            f"QEMU cannot open the scratch file {path}: {error.text}. The directory must be usable for the"
            " user that QEMU runs as; choose another --scratch."
        ) from error
