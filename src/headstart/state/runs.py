"""Runs on the VMs of a host: what was done when, and what was told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from headstart.state.database import Database
from headstart.state.values import Run

KEPT_SECONDS = 90 * 24 * 3600.0
#: With each that begins so many go at most.
GOING = 2


class Runs:
    """Usable from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, vm: str, verb: str) -> int:
        """Returns its number. Old runs are forgotten, a few each time: a clock may be ahead for a while."""
        oldest = time.time() - KEPT_SECONDS
        with self._database.change() as database:
            found = "SELECT number FROM runs WHERE vm = ? AND begun < ? ORDER BY number LIMIT ?"
            database.execute(f"DELETE FROM runs WHERE number IN ({found})", (vm, oldest, GOING))
            cursor = database.execute(
                "INSERT INTO runs (vm, verb, begun, report) VALUES (?, ?, ?, '{}')", (vm, verb, time.time())
            )
            return int(cursor.lastrowid or 0)

    def end(self, number: int, report: Mapping[str, Any]) -> None:
        with self._database.change() as database:
            database.execute(
                "UPDATE runs SET ended = ?, report = ? WHERE number = ?", (time.time(), json.dumps(report), number)
            )

    def newest(self, vm: str, limit: int = 20) -> list[Run]:
        """The newest first."""
        return self.where("vm = ? ORDER BY number DESC LIMIT ?", vm, limit)

    def backups(self, vm: str, after: int, limit: int) -> list[Run]:
        """Backups, and spooled ones that were published later, with a higher number, newest first."""
        which = "vm = ? AND number > ? AND verb IN ('backup', 'publish') ORDER BY number DESC LIMIT ?"
        return self.where(which, vm, after, limit)

    def between(self, vm: str, since: float, until: float) -> list[Run]:
        """Those that were under way at any time of it, oldest first. Of those that never ended only the newest may be
        under way still: the others count for when they began."""
        which = (
            "vm = ? AND begun < ? AND (max(begun, coalesce(ended, begun)) >= ?"
            " OR ended IS NULL AND number = (SELECT max(number) FROM runs WHERE vm = ?)) ORDER BY number"
        )
        return self.where(which, vm, until, since, vm)

    def where(self, which: str, *values: Any) -> list[Run]:
        """``which``: an SQL condition, and an order."""
        rows = self._database.rows(f"SELECT * FROM runs WHERE {which}", *values)
        return [Run(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows]
