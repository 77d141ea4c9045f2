"""The server's database: SQLite for one process, PostgreSQL for several."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event, exc

from headstart import errors
from headstart.server import engine, revisions

#: Seconds that a writer waits for another one of SQLite's, and anybody for a free connection.
_WAIT_SECONDS = 20
#: Any number that no other program takes: who holds this lock of PostgreSQL's migrates.
_MIGRATING = 0x48445354


class Database:
    """``read`` and ``write`` are transactions, each on a connection of its own; any thread may use them.

    An error of the database's leaves as ``StoreFailed`` when trying again may help: nothing was committed then, or
    (a connection that broke at the commit) it is not known."""

    def __init__(self, url: str) -> None:
        """``sqlite:///PATH`` or ``postgresql+psycopg://...``. Raises ``Usage`` for another one."""
        self.url = url
        self._engine = _engine(url)

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """To read many tables as they were at one moment."""
        with _translated(), self._engine.connect() as connection:
            begin = "BEGIN" if self.is_sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
            connection.exec_driver_sql(begin)
            yield connection

    @staticmethod
    def revision(connection: Connection) -> str:
        """Of the tables."""
        return str(revisions.found(connection))

    @staticmethod
    def alone(connection: Connection, number: int) -> bool:
        """Whether no other process has this, until the transaction ends: also by its process's death. ``number``: one
        that no other program takes."""
        if connection.dialect.name == "sqlite":
            return True  # whoever writes is
        return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({number})").scalar())

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Committed when the block ends, rolled back when it raises."""
        with _translated(), self._engine.connect() as connection:
            if self.is_sqlite:
                # Two that read first and then write would lock each other out.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def migrate(self) -> None:
        """Make the tables, or bring them up to date. Several processes may begin at once."""
        with _translated(), self._engine.connect() as connection:
            lock = "BEGIN IMMEDIATE" if self.is_sqlite else f"SELECT pg_advisory_xact_lock({_MIGRATING})"
            connection.exec_driver_sql(lock)
            if revisions.found(connection) != revisions.NEWEST:
                # Not at the top: alembic takes long to load, and is needed once a release.
                from headstart.server import migrating

                migrating.upgrade(connection)
            engine.prepare(connection)
            connection.commit()

    def close(self) -> None:
        self._engine.dispose()


def _engine(url: str) -> Engine:
    try:
        found = sqlalchemy.engine.make_url(url)
    except exc.ArgumentError as error:
        raise errors.Usage(f"{url!r} is no address of a database: write postgresql://USER@HOST/NAME.") from error
    if found.drivername == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    if found.drivername == "postgresql+psycopg":
        try:
            return sqlalchemy.create_engine(
                found, pool_size=20, max_overflow=20, pool_timeout=_WAIT_SECONDS, pool_pre_ping=True
            )
        except ModuleNotFoundError as error:
            raise errors.Usage(
                "PostgreSQL needs more packages: install headstart-server (Debian), or 'headstart[server,postgresql]'"
                " (pip, pipx)."
            ) from error
    if found.drivername != "sqlite":
        raise errors.Usage(f"A database of the kind {found.drivername!r} is not known: use PostgreSQL, or none.")
    engine = sqlalchemy.create_engine(found, connect_args={"timeout": _WAIT_SECONDS, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # Transactions begin where we say so, not where sqlite3 guesses.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError:
        raise
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        if "full" in str(error.__cause__ or error).lower() and "disk" in str(error.__cause__ or error).lower():
            raise errors.NoSpace("The disk of the server's database is full. Make room there.") from error
        raise errors.StoreFailed("The server's database cannot be reached just now. Try again.") from error
