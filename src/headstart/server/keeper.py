"""What keeps jobs going: those that come by themselves are thought of, and those that nobody hears of any longer.

In every process. One at a time does it, and it does not matter which one, nor whether that one dies.
"""

from __future__ import annotations

import logging
import threading
import time

from headstart import errors
from headstart.server import engine, jobs, schedule
from headstart.server.site import Site
from headstart.server.worker import Worker

_log = logging.getLogger("headstart.server.jobs")

_LOOK_SECONDS = 5.0
#: From one look at the schedules to the next.
_SCHEDULE_SECONDS = 30.0
#: Any number that no other program takes.
_KEEPING = 0x4844534B


class Keeper:
    """``start`` it; it ends with its worker."""

    def __init__(self, site: Site, worker: Worker) -> None:
        self._site = site
        self._worker = worker
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        scheduled = -_SCHEDULE_SECONDS
        while True:
            now = time.monotonic()
            try:
                ring_again(self._site)
                if now - scheduled >= _SCHEDULE_SECONDS:
                    think_of(self._site)
                    scheduled = now
            except errors.HeadstartError as error:
                _log.warning("Jobs cannot be looked after: %s", error)
            except Exception as error:
                _log.error("A bug; it is tried again.", exc_info=error)
            if self._worker.wait(_LOOK_SECONDS):
                return


def think_of(site: Site) -> None:
    """What comes by itself, and is due."""
    now = site.clock()
    with site.database.read() as connection:
        wanted = schedule.missing(connection, now)
    if not wanted:
        return
    with site.database.write() as connection:
        if site.database.alone(connection, _KEEPING):
            for wish in wanted:
                jobs.add(connection, wish, now)


def ring_again(site: Site) -> None:
    """For what is due and nobody hears of."""
    now = site.clock()
    with site.database.read() as connection:
        unheard = jobs.unheard(connection, now)
    if not unheard:
        return
    with site.database.write() as connection:
        if site.database.alone(connection, _KEEPING):
            for job in unheard:
                engine.ring(connection, job)
