"""When the packs of a repository were last read back and found whole. Losing it costs reading them again."""

from __future__ import annotations

from collections.abc import Collection

from headstart.state.database import Database


class Verified:
    """Of the repository with this id. Usable from several threads."""

    def __init__(self, database: Database, repository: str) -> None:
        self._database = database
        self._repository = repository

    def known(self) -> dict[bytes, float]:
        """By pack, seconds since 1970."""
        return dict(self._database.rows("SELECT pack, moment FROM verified WHERE repository = ?", self._repository))

    def put(self, packs: Collection[bytes], moment: float) -> None:
        with self._database.change() as database:
            values = ((self._repository, pack, moment) for pack in packs)
            database.executemany("INSERT OR REPLACE INTO verified VALUES (?, ?, ?)", values)

    def forget(self, packs: Collection[bytes]) -> None:
        with self._database.change() as database:
            values = ((self._repository, pack) for pack in packs)
            database.executemany("DELETE FROM verified WHERE repository = ? AND pack = ?", values)

    def begin(self, now: float) -> float:
        """When the reading of everything began that has not come to its end: ``now``, if there is none."""
        with self._database.change() as database:
            database.execute("INSERT OR IGNORE INTO readings VALUES (?, ?)", (self._repository, now))
        return float(self._database.rows("SELECT begun FROM readings WHERE repository = ?", self._repository)[0][0])

    def end(self) -> None:
        """It came to its end."""
        with self._database.change() as database:
            database.execute("DELETE FROM readings WHERE repository = ?", (self._repository,))
