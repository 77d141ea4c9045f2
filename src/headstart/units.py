"""Bytes and seconds, as people read and write them."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

#: Bytes of a block: QEMU's default dirty bitmap granularity.
BLOCK_SIZE = 64 * KIB


def format_bytes(count: int) -> str:
    """``1536 -> '1.5 KiB'``. The unit is chosen for what is told: ``MIB - 1 -> '1.0 MiB'``."""
    if count < KIB:
        return f"{count} B"
    unit, name = KIB, "KiB"
    for larger, its_name in ((MIB, "MiB"), (GIB, "GiB"), (TIB, "TiB")):
        if round(count / unit, 1) >= 1024:
            unit, name = larger, its_name
    return f"{count / unit:.1f} {name}"


def format_seconds(seconds: float) -> str:
    """``0.0123 -> '12 ms'``, ``75 -> '1 min 15 s'``. The unit is chosen for what is told: ``59.96 -> '1 min 0 s'``."""
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
