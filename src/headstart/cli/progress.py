"""Showing how far a run is: bars on a terminal, lines of JSON, or nothing."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headstart import plain
from headstart.cli import streams

#: ``report(what, done, total)`` in bytes; may be called often, from any thread.
Report = Callable[[str, int, int], None]

#: Seconds between two lines about the same thing.
_INTERVAL = 0.5


@contextlib.contextmanager
def bars() -> Iterator[Report]:
    """One bar for each thing, on stderr, gone when the context ends."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()
    shown = Progress(*columns, console=Console(stderr=True), transient=True)

    def report(what: str, done: int, total: int) -> None:
        with lock:
            if what not in tasks:
                tasks[what] = shown.add_task(plain.line(what))
        shown.update(tasks[what], completed=done, total=total)

    shown.start()
    try:
        yield report
    finally:
        with contextlib.suppress(OSError):  # the terminal may have gone
            shown.stop()


@contextlib.contextmanager
def lines() -> Iterator[Report]:
    """``{"progress": {"what", "done", "total"}}``: the first and the last of each thing, and two a second between."""
    last: dict[str, tuple[float, int]] = {}
    lock = threading.Lock()

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        with lock:
            then, before = last.get(what, (0.0, -1))
            if done == before or (now - then < _INTERVAL and done < total):
                return
            last[what] = (now, done)
            streams.tell(json.dumps({"progress": {"what": what, "done": done, "total": total}}))

    yield report


@contextlib.contextmanager
def nothing() -> Iterator[Report]:
    yield lambda what, done, total: None
