"""Plain text for people."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headstart import plain

ID_SHOWN = 12


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their content; nothing but the headings where there are no rows. Cells may hold words of
    others: each is one line."""
    lines = [headings, *([plain.line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def moment(seconds: float) -> str:
    """Local time of seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def short(snapshot_id: str) -> str:
    """Enough of an id to name it by."""
    return snapshot_id[:ID_SHOWN]
