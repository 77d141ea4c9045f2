"""Who works on jobs: takes one up, gives signs of life with it, and writes down what came of it."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from headstart import errors
from headstart.server import jobs
from headstart.server.jobs import Job, Sign, State
from headstart.server.site import Site
from headstart.server.work import registry
from headstart.server.work.contract import Halted, Run
from headstart.store.contract import Refused

_log = logging.getLogger("headstart.server.jobs")

#: These may pass: it is tried again after a pause. Whatever else a job fails with, it would fail with the next time.
_PASSING = (errors.StoreFailed, errors.Locked, errors.Busy, errors.NoSpace, errors.TooOften)
_LONGEST = 2000
#: At the end of the process jobs have so long to come to theirs.
_FAREWELL_SECONDS = 10.0


class Worker:
    """Any thread may ask it to work; ``stop`` ends all of it."""

    def __init__(self, site: Site) -> None:
        self.name = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._site = site
        self._stopping = threading.Event()
        self._working = 0
        self._changed = threading.Condition()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it is stopping."""
        return self._stopping.wait(seconds)

    def stop(self) -> None:
        """What is under way is given back, for others to take up at once; it gets a while to come to that."""
        self._stopping.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._working, _FAREWELL_SECONDS)

    def perform(self, job_id: str) -> bool:
        """Whether it was taken up. Raises what the database raises."""
        with self._changed:
            if self.stopping:
                return False
            self._working += 1
        try:
            return self._perform(job_id)
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _perform(self, job_id: str) -> bool:
        with self._site.database.write() as connection:
            job = jobs.take(connection, job_id, self.name, self._site.clock())
        if job is None:
            return False
        _log.info("begun kind=%s job=%s attempt=%d", job.kind, job.id, job.attempts)
        with contextlib.suppress(errors.StoreFailed), self._site.database.write() as connection:
            jobs.note(connection, job, self.name, "begun", self._site.clock(), {})
        with _Signs(self._site, job, self.name, self._stopping) as signs:
            outcome = _run(self._site, job, signs, registry.RUNS.get(job.kind))
            signs.close()
            self._settle(job, signs, outcome)
        return True

    def _settle(self, job: Job, signs: _Signs, outcome: dict[str, Any] | Exception) -> None:
        if signs.sign is Sign.LOST:
            _log.warning("lost kind=%s job=%s: it was taken up by another worker", job.kind, job.id)
        elif not isinstance(outcome, Exception):
            self._end(job, State.DONE, result=outcome)
        elif signs.sign is Sign.STOP:
            self._end(job, State.CANCELLED)
        elif isinstance(outcome, Halted):
            self._give_back(job, 0.0, None)
        elif _passes(outcome) and job.attempts < jobs.ATTEMPTS:
            _log.warning("failed kind=%s job=%s, it is tried again: %s", job.kind, job.id, outcome)
            self._give_back(job, jobs.pause(job.attempts), str(outcome)[:_LONGEST])
        else:
            self._end(job, State.FAILED, error=_said(job, outcome))

    def _give_back(self, job: Job, seconds: float, error: str | None) -> None:
        def write() -> None:
            with self._site.database.write() as connection:
                now = self._site.clock()
                jobs.put_back(connection, job, self.name, now, seconds, error=error, counted=error is not None)

        self._insist(write)

    def _end(self, job: Job, state: State, *, result: dict[str, Any] | None = None, error: str | None = None) -> None:
        def write() -> None:
            with self._site.database.write() as connection:
                jobs.end(connection, job, self.name, state, self._site.clock(), result=result, error=error)

        _log.info("ended kind=%s job=%s state=%s", job.kind, job.id, state)
        self._insist(write)

    def _insist(self, write: Callable[[], None]) -> None:
        """The database may be away just now. If it stays so, somebody else takes the job up, and repeats it."""
        until = time.monotonic() + jobs.DEAD_SECONDS
        while True:
            try:
                write()
                return
            except errors.StoreFailed as error:
                if time.monotonic() > until:
                    _log.error("What came of a job could not be written down: %s", error)
                    return
                self._stopping.wait(1.0)
                time.sleep(0.1)


def _run(site: Site, job: Job, signs: _Signs, run: Run | None) -> dict[str, Any] | Exception:
    if run is None:
        return errors.Unsupported(f"This server knows no job of the kind {job.kind!r}. Is another one newer?")
    try:
        return run(site, job, signs)
    except Exception as error:
        return error


def _passes(error: Exception) -> bool:
    return isinstance(error, _PASSING) and not isinstance(error, Refused)


def _said(job: Job, error: Exception) -> str:
    if isinstance(error, errors.HeadstartError):
        _log.warning("failed kind=%s job=%s: %s", job.kind, job.id, error)
        return str(error)[:_LONGEST]
    _log.error("failed kind=%s job=%s: a bug", job.kind, job.id, exc_info=error)
    return "Something is wrong with the server itself: its log tells more."


class _Signs:
    """Signs of life of one job, on a thread of their own; called, what ``Beat`` says."""

    def __init__(self, site: Site, job: Job, worker: str, stopping: threading.Event) -> None:
        self._site = site
        self._job = job
        self._worker = worker
        self._stopping = stopping
        self._progress: dict[str, Any] | None = None
        self._heard = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._give, name="beat", daemon=True)
        self.sign = Sign.ON

    def __enter__(self) -> _Signs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def __call__(self, what: str = "", done: int = 0, total: int = 0) -> None:
        if self.sign is not Sign.ON or self._stopping.is_set():
            raise Halted("The job was ended before it was done.")
        if what:
            self._progress = {"what": what, "done": done, "total": total}

    def _give(self) -> None:
        while self.sign is not Sign.LOST and not self._end.wait(jobs.BEAT_SECONDS):
            try:
                with self._site.database.write() as connection:
                    now = self._site.clock()
                    self.sign = jobs.beat(connection, self._job, self._worker, now, self._progress)
                self._heard = time.monotonic()
            except Exception as error:
                _log.warning("job=%s: no sign of life could be given: %s", self._job.id, error)
                if time.monotonic() - self._heard > jobs.DEAD_SECONDS:
                    # Somebody else may have it by now, whatever we think.
                    self.sign = Sign.LOST
