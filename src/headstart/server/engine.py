"""What makes somebody take up a job. The table ``jobs`` is the truth; an engine only rings a bell.

SQLite: the threads of the one process look into the table by themselves. PostgreSQL: procrastinate, whose rows are
written in the same transaction as the job's, so that there is a bell exactly where there is a job.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    import procrastinate

QUEUE = "headstart"
TASK = "headstart.work"
#: A worker of procrastinate's that was not heard of for so long is dead, and so is what it had.
_DEAD_SECONDS = 300
_NOTE = "procrastinate "


def ring(connection: Connection, job: str, seconds: float = 0.0) -> None:
    """So many seconds from now. In the transaction of the job's change: neither is there without the other."""
    if connection.dialect.name == "sqlite":
        return
    from procrastinate import exceptions

    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds) if seconds > 0 else None
    with contextlib.suppress(exceptions.AlreadyEnqueued), connection.begin_nested():
        _app().configure_task(
            TASK, queue=QUEUE, queueing_lock=job, schedule_at=moment, connection=_raw(connection)
        ).defer(job=job)


def silent(connection: Connection, jobs: list[str]) -> list[str]:
    """Those that no bell rings for."""
    if connection.dialect.name == "sqlite" or not jobs:
        return []
    query = text(
        "SELECT wanted.id FROM unnest(CAST(:jobs AS text[])) AS wanted(id) WHERE NOT EXISTS"
        " (SELECT 1 FROM procrastinate_jobs WHERE queueing_lock = wanted.id AND status = 'todo')"
    )
    return list(connection.execute(query, {"jobs": jobs}).scalars())


def tidy(connection: Connection) -> None:
    """What dead workers left with procrastinate: what becomes of their jobs, the table of jobs says."""
    if connection.dialect.name != "sqlite":
        query = text(
            "DELETE FROM procrastinate_jobs AS job WHERE status <> 'todo' AND NOT EXISTS (SELECT 1 FROM"
            " procrastinate_workers AS worker WHERE worker.id = job.worker_id"
            " AND worker.last_heartbeat > now() - make_interval(secs => :seconds))"
        )
        connection.execute(query, {"seconds": _DEAD_SECONDS})


def prepare(connection: Connection) -> None:
    """Make procrastinate's tables, or bring them up to date, by its own files. Whoever calls holds the lock of those
    who migrate."""
    if connection.dialect.name == "sqlite":
        return
    from procrastinate.schema import SchemaManager

    installed = importlib.metadata.version("procrastinate")
    if connection.execute(text("SELECT to_regclass('procrastinate_jobs')")).scalar() is None:
        _run(connection, SchemaManager.get_schema(), installed)
        return
    note = connection.execute(text("SELECT obj_description('procrastinate_jobs'::regclass)")).scalar() or ""
    found = _numbers(note.removeprefix(_NOTE))
    if found >= _numbers(installed):
        return
    # Some steps need what those before them have committed; the lock is our own connection's all the time.
    with connection.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        for step, script in _steps(SchemaManager.get_migrations_path(), found):
            _run(other, script, step)
        _run(other, "", installed)


def _steps(folder: str, after: tuple[int, ...]) -> list[tuple[str, str]]:
    """Release and script. Files are named by the release that they came with, such as ``03.04.00_50_post_...sql``.

    Of the releases, only whole ones are noted as done: a script that stands beside another one is told with the release
    before it."""
    found: list[tuple[str, str]] = []
    done = ".".join(map(str, after))
    files = sorted(Path(folder).glob("*.sql"))
    for number, file in enumerate(files):
        release = file.name.partition("_")[0]
        if _numbers(release) > after:
            last = number + 1 == len(files) or not files[number + 1].name.startswith(release)
            done = release if last else done
            found.append((done, file.read_text()))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _run(connection: Connection, script: str, release: str) -> None:
    """And note which release it made: procrastinate keeps no account of it. Several statements in one text: only the
    driver's own connection takes them."""
    _raw(connection).execute(f"{script}\n;COMMENT ON TABLE procrastinate_jobs IS '{_NOTE}{release}'")


def _raw(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


_made: list[procrastinate.App] = []


def _app() -> procrastinate.App:
    """One that defers on connections of ours alone: it has none."""
    if not _made:
        import procrastinate

        _made.append(procrastinate.App(connector=procrastinate.SyncPsycopgConnector()))
    return _made[0]
