"""Working on jobs in a process: a server's own, or one that does nothing else."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from headstart import errors
from headstart.server import site
from headstart.server.engine_queue import Queue
from headstart.server.engine_threads import Threads
from headstart.server.keeper import Keeper
from headstart.server.settings import Settings
from headstart.server.site import Site
from headstart.server.worker import Worker


@contextlib.contextmanager
def running(opened: Site, count: int) -> Iterator[Worker]:
    """``count`` jobs at a time, until the block ends; 0: others work, and this one looks after them all the same."""
    worker = Worker(opened)
    Keeper(opened, worker).start()
    kind = Threads if opened.database.is_sqlite else Queue
    engine = kind(opened, worker, count) if count else None
    if engine is not None:
        engine.start()
    try:
        yield worker
    finally:
        worker.stop()
        if engine is not None:
            engine.stop()


def work(settings: Settings, ready: Callable[[str], None]) -> None:
    """Until SIGTERM or SIGINT. ``ready`` is told the name of the worker. Raises ``Usage``, and what opening the
    database raises."""
    if settings.database.startswith("sqlite"):
        raise errors.Usage(
            "With SQLite the server itself works on its jobs, and nobody else: name the --database of PostgreSQL."
        )
    opened = site.open_site(settings)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        with running(opened, settings.workers) as worker:
            ready(worker.name)
            ended.wait()
    finally:
        opened.database.close()
