"""The engine of servers with PostgreSQL: procrastinate hears the bells, over any number of processes.

It tells which job there is to look at, and no more: whether it is taken up, the table of jobs decides. So what it gives
twice is done once, and what it loses with a worker is rung for again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

import sqlalchemy

from headstart.server import engine
from headstart.server.site import Site
from headstart.server.worker import Worker

if TYPE_CHECKING:
    import procrastinate

_log = logging.getLogger("headstart.server.jobs")

#: After the database was away.
_AGAIN_SECONDS = 2.0
_POLL_SECONDS = 2.0
_JOIN_SECONDS = 5.0


class Queue:
    """``start`` it, on a thread of its own, and ``stop`` it after its worker."""

    def __init__(self, site: Site, worker: Worker, count: int) -> None:
        self._site = site
        self._worker = worker
        self._count = count
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)
        # It tells of each bell; the worker tells of each job.
        logging.getLogger("procrastinate").setLevel(logging.WARNING)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        while not self._worker.stopping:
            try:
                await self._listen()
            except asyncio.CancelledError:
                return
            except Exception as error:
                # Of many kinds, where the database is away: procrastinate's, its driver's, its pool's.
                _log.warning("The queue of jobs cannot be listened to, it is tried again: %s", error)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self) -> None:
        app = self._app()
        async with app.open_async():
            await app.run_worker_async(
                queues=[engine.QUEUE],
                name=self._worker.name,
                concurrency=self._count,
                fetch_job_polling_interval=_POLL_SECONDS,
                delete_jobs="always",
                install_signal_handlers=False,
            )

    def _app(self) -> procrastinate.App:
        import procrastinate

        url = sqlalchemy.make_url(self._site.database.url).set(drivername="postgresql")
        connector = procrastinate.PsycopgConnector(conninfo=url.render_as_string(hide_password=False))
        app = procrastinate.App(connector=connector)

        async def work(job: str) -> None:
            if not self._worker.stopping:
                await _on_a_thread(self._worker, job)

        app.task(name=engine.TASK, queue=engine.QUEUE)(work)
        return app


async def _on_a_thread(worker: Worker, job: str) -> None:
    """One that nothing waits for at the end of the process: a store may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        found: Exception | None = None
        try:
            worker.perform(job)
        except Exception as error:
            found = error
        # The loop may have ended.
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=run, name="job", daemon=True).start()
    await done
