"""Showing how far a run is: bars on a terminal, lines of JSON, or nothing."""

from __future__ import annotations

import collections
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from headstart import plain
from headstart.cli import estimate, streams
from headstart.cli.estimate import Estimate

#: ``report(what, done, total)`` in bytes; may be called often, from any thread.
Report = Callable[[str, int, int], None]

#: Seconds between two lines about the same thing.
_INTERVAL = 0.5


class _TimeLeft(ProgressColumn):
    def __init__(self, estimates: dict[TaskID, Estimate]) -> None:
        super().__init__()
        self._estimates = estimates

    def render(self, task: Task) -> Text:
        left = self._estimates[task.id].seconds_left(time.monotonic()) if not task.finished else None
        return Text(estimate.told(left))


@contextlib.contextmanager
def bars() -> Iterator[Report]:
    """One bar for each thing, on stderr, gone when the context ends."""
    estimates: dict[TaskID, Estimate] = collections.defaultdict(Estimate)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        _TimeLeft(estimates),
    )
    tasks: dict[str, TaskID] = {}
    lock = threading.Lock()
    shown = Progress(*columns, console=Console(stderr=True), transient=True)

    def report(what: str, done: int, total: int) -> None:
        with lock:
            if what not in tasks:
                tasks[what] = shown.add_task(plain.line(what))
            estimates[tasks[what]].add(time.monotonic(), done, total)
        shown.update(tasks[what], completed=done, total=total)

    shown.start()
    try:
        yield report
    finally:
        with contextlib.suppress(OSError):  # the terminal may have gone
            shown.stop()


@contextlib.contextmanager
def lines() -> Iterator[Report]:
    """``{"progress": {"what", "done", "total", "seconds_left"}}``: the first and the last of each thing, and two a
    second between. ``seconds_left`` is null where that is not known."""
    last: dict[str, tuple[float, int]] = {}
    estimates: dict[str, Estimate] = collections.defaultdict(Estimate)
    lock = threading.Lock()

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        with lock:
            estimates[what].add(now, done, total)
            then, before = last.get(what, (0.0, -1))
            if done == before or (now - then < _INTERVAL and done < total):
                return
            last[what] = (now, done)
            left = estimates[what].seconds_left(now)
            values = {"what": what, "done": done, "total": total, "seconds_left": None if left is None else round(left)}
            streams.tell(json.dumps({"progress": values}))

    yield report


@contextlib.contextmanager
def nothing() -> Iterator[Report]:
    yield lambda what, done, total: None
