"""The database of a host's state: opened, upgraded, changed one transaction at a time."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from headstart import errors
from headstart.state import schema

#: The file in a state directory.
DATABASE = "state.sqlite3"
_BUSY_SECONDS = 30.0


class Database:
    """A context manager; usable from several threads. Each ``change`` is one transaction, and ends in ``_commit``."""

    def __init__(self, database: sqlite3.Connection, directory: Path | None) -> None:
        self._database = database
        self._directory = directory
        self._lock = threading.RLock()
        self.installation = self._prepare()

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Raises ``Usage`` when the directory cannot be used, ``NoSpace``, ``Locked``, ``Unsupported`` when it is newer
        than we."""
        try:
            # Others may pass through, to scratch files that are QEMU's, and see nothing.
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
            path = directory / DATABASE
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            # Before anything is written.
            _refuse_newer(database, directory)
            database.execute("PRAGMA journal_mode = WAL")
            return cls(database, directory)
        except OSError as error:
            raise errors.Usage(
                f"The state directory {directory} cannot be used: {error.strerror}. Name another one with --state, or"
                " run as a user who may write there."
            ) from error
        except sqlite3.Error as error:
            raise _told(error, directory) from error

    @classmethod
    def in_memory(cls) -> Self:
        return cls(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False), None)

    def _prepare(self) -> str:
        database = self._database
        database.execute("PRAGMA foreign_keys = ON")
        # A commit that a power cut takes back is an old journal, which is safe.
        database.execute("PRAGMA synchronous = NORMAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._create()
        else:
            self._upgrade(version)
        row = database.execute("SELECT value FROM meta WHERE name = 'installation'").fetchone()
        return str(row[0])

    def _create(self) -> None:
        installation = secrets.token_hex(4)
        self._database.executescript(
            f"BEGIN IMMEDIATE;{schema.TABLES}PRAGMA user_version = {schema.VERSION};"
            f"INSERT INTO meta VALUES ('installation', '{installation}');COMMIT;"
        )

    def _upgrade(self, version: int) -> None:
        if version == schema.VERSION:
            return
        with self.change() as database:
            # Another process may have come first.
            begun = database.execute("PRAGMA user_version").fetchone()[0]
            for each in range(begun, schema.VERSION):
                for statement in schema.UPGRADES[each]:
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {schema.VERSION}")

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._telling():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._commit()
            except BaseException:
                # SQLite may have rolled back by itself, as it does when the disk is full.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def durable(self) -> Iterator[None]:
        """What is changed in it outlasts a power cut."""
        with self._lock:
            self._database.execute("PRAGMA synchronous = FULL")
            try:
                yield
            finally:
                self._database.execute("PRAGMA synchronous = NORMAL")

    def _commit(self) -> None:
        self._database.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, self._telling():
            return self._database.execute(query, values).fetchall()

    @contextlib.contextmanager
    def reading(self, query: str, *values: Any) -> Iterator[Iterator[Any]]:
        """The rows one by one, as of one moment; nobody else comes in meanwhile."""
        with self._lock, self._telling():
            yield self._database.execute(query, values)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What SQLite reports is told to the user in our words."""
        try:
            yield
        except UnicodeEncodeError as error:
            # Bytes of an argument that are no text.
            raise errors.Usage(f"{error.object!r} is not text in UTF-8: nothing here is called so.") from error
        except sqlite3.DatabaseError as error:
            raise _told(error, self._directory) from error

    def close(self) -> None:
        """Once nobody is in it: SQLite crashes where a connection is closed beneath another thread."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _told(error: sqlite3.Error, directory: Path | None) -> errors.HeadstartError:
    where = f"The state in {directory}"
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the rest says in which operation
        case sqlite3.SQLITE_FULL:
            return errors.NoSpace(f"{where} cannot be written: the disk is full. Make room there.")
        case sqlite3.SQLITE_BUSY:
            return errors.Locked(f"{where} is in use by another process for too long. Try again.")
    return errors.Usage(
        f"{where} cannot be used: {error}. If it stays so, move the file away: losing it costs the head start, no data."
    )


def _refuse_newer(database: sqlite3.Connection, directory: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.VERSION:
        database.close()
        raise errors.Unsupported(
            f"The state in {directory} was written by a newer Headstart (version {version}, this one knows"
            f" {schema.VERSION}). Use that one, or name another --state."
        )
