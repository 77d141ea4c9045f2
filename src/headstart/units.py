"""Bytes and seconds, as people read and write them."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

#: Bytes of a block: QEMU's default dirty bitmap granularity.
BLOCK_SIZE = 64 * KIB


def format_bytes(count: int) -> str:
    """``1536 -> '1.5 KiB'``."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def format_seconds(seconds: float) -> str:
    """``0.0123 -> '12 ms'``, ``75 -> '1 min 15 s'``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
