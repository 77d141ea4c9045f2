"""The engine of a server with SQLite: threads of the one process look for what is due."""

from __future__ import annotations

import logging
import threading

from headstart import errors
from headstart.server import jobs
from headstart.server.site import Site
from headstart.server.worker import Worker

_log = logging.getLogger("headstart.server.jobs")

_LOOK_SECONDS = 0.5
#: Looked through for one that can be taken up: the lanes of the others may be taken.
_LIMIT = 20


class Threads:
    """``start`` it; it ends with its worker."""

    def __init__(self, site: Site, worker: Worker, count: int) -> None:
        self._site = site
        self._worker = worker
        self._threads = [threading.Thread(target=self._run, name=f"job-{each}", daemon=True) for each in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """They end by themselves."""

    def _run(self) -> None:
        while not self._worker.stopping:
            try:
                if self._take():
                    continue
            except errors.HeadstartError as error:
                _log.warning("Jobs cannot be looked for: %s", error)
            except Exception as error:
                _log.error("A bug; it is looked for jobs again.", exc_info=error)
            self._worker.wait(_LOOK_SECONDS)

    def _take(self) -> bool:
        with self._site.database.read() as connection:
            found = jobs.due(connection, self._site.clock(), _LIMIT)
        return any(self._worker.perform(each) for each in found)
