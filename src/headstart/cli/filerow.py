"""A file of a snapshot, as JSON and as a row for people."""

from __future__ import annotations

import stat
from typing import Any

from headstart import errors, plain
from headstart.cli import text
from headstart.restore.files.filetree import File
from headstart.volumes.filesystem import TYPES, Node


def values(file: File, target: str = "") -> dict[str, Any]:
    node = file.node
    found: dict[str, Any] = {
        "path": file.path,
        "kind": node.kind,
        "mode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
        "size": node.size,
        "links": node.links,
        "mtime": node.mtime / 10**9,
    }
    if node.kind == "symlink":
        found["target"] = target
    if node.kind in ("character", "block"):
        found |= {"major": node.major, "minor": node.minor}
    return found


def row(file: File, name: str, target: str = "") -> tuple[str, ...]:
    """As ``ls -l`` has it."""
    node = file.node
    size = f"{node.major}, {node.minor}" if node.kind in ("character", "block") else str(node.size)
    shown = f"{name} -> {target}" if node.kind == "symlink" else name
    mode = stat.filemode(TYPES[node.kind] | node.mode)
    return (mode, str(node.links), str(node.uid), str(node.gid), size, when(node), shown)


def when(node: Node) -> str:
    """A guest may set any time."""
    try:
        return text.moment(node.mtime // 10**9)
    except (OverflowError, OSError, ValueError):
        return "?"


def target(file: File) -> str:
    """Of a link; empty if it cannot be read."""
    try:
        return file.details().target if file.node.kind == "symlink" else ""
    except errors.HeadstartError:
        return ""


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Numbers to the right."""
    if not rows:
        return ""
    widths = [max(len(each[column]) for each in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join(
            (
                *(
                    cell.ljust(width) if column == 0 else cell.rjust(width)
                    for column, (cell, width) in enumerate(zip(each[:-1], widths, strict=True))
                ),
                plain.line(each[-1]),
            )
        )
        for each in rows
    )
