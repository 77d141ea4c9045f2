"""The figures of the two days side by side."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table

from bench.day import Day
from bench.spans import Latencies


def of(head_start: Day, plain: Day) -> Table:
    table = Table(box=box.SIMPLE, title="The same changes, backed up in two ways", title_justify="left")
    table.add_column("")
    table.add_column("plain", justify="right")
    table.add_column("head start", justify="right")
    for label, left, right in zip(_labels(), _cells(plain), _cells(head_start), strict=True):
        table.add_row(label, left, right)
    return table


def _labels() -> Iterator[str]:
    yield from ("changed", "copied ahead", "residue", "window", "freeze", "pause")
    for span in ("before", "while copying", "- by the agent", "- by the host", "in the window"):
        yield f"guest's fsync {span}: p50 / p99"


def _cells(day: Day) -> Iterator[str]:
    for key in ("changed_bytes", "precopied_bytes", "residue_bytes"):
        yield f"{day.sum(key) / 2**20:.1f} MiB"
    yield f"{day.backup['window_seconds']:.3f} s"
    yield f"{day.backup['freeze_seconds'] * 1000:.0f} ms"
    yield f"{day.backup['pause_seconds'] * 1000:.0f} ms"
    for found in (day.before, day.copying, day.by_transport.get("agent"), day.by_transport.get("host"), day.in_window):
        yield _latency(found)


def _latency(found: Latencies | None) -> str:
    if found is None or found.p50 is None or found.p99 is None:
        return "-"
    return f"{found.p50:.1f} / {found.p99:.1f} ms"
