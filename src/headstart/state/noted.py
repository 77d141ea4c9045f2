"""What is noted of a VM beside its disks, its draft and its runs."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from headstart.state.database import Database
from headstart.state.values import Rollback

_ROLLBACK, _VOLUMES, _TRIMMED, _REHEARSED = "rollback", "volumes", "trimmed", "rehearsed"


class Noted:
    """Usable from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_rollback(self, vm: str, rollback: Rollback) -> None:
        """Before the VM is shut down, and before the first byte is written. Durable: the power may go while the disks
        are neither the one nor the other."""
        with self._database.durable():
            self._put(_ROLLBACK, vm, asdict(rollback))

    def rollback(self, vm: str) -> Rollback | None:
        """The one that is under way, or was interrupted."""
        told = self._get(_ROLLBACK, vm)
        return Rollback(**told) if told is not None else None

    def end_rollback(self, vm: str) -> None:
        with self._database.change() as database:
            database.execute("DELETE FROM meta WHERE name = ?", (_name(_ROLLBACK, vm),))

    def put_volumes(self, vm: str, told: Any) -> None:
        """Plain JSON: what lay on its disks when it was last looked."""
        self._put(_VOLUMES, vm, told)

    def volumes(self, vm: str) -> Any:
        return self._get(_VOLUMES, vm)

    def put_trimmed(self, vm: str, moment: float) -> None:
        self._put(_TRIMMED, vm, moment)

    def trimmed(self, vm: str) -> float:
        """When its guest was last asked to trim, in seconds since 1970; 0: never."""
        return float(self._get(_TRIMMED, vm) or 0.0)

    def put_rehearsed(self, vm: str, moment: float) -> None:
        self._put(_REHEARSED, vm, moment)

    def rehearsed(self, vm: str) -> float:
        """When it was rehearsed last by schedule, or one that has it was met first, in seconds since 1970; 0: never."""
        return float(self._get(_REHEARSED, vm) or 0.0)

    def _put(self, what: str, vm: str, told: Any) -> None:
        with self._database.change() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_name(what, vm), json.dumps(told)))

    def _get(self, what: str, vm: str) -> Any:
        rows = self._database.rows("SELECT value FROM meta WHERE name = ?", _name(what, vm))
        return json.loads(rows[0][0]) if rows else None


def forget(database: sqlite3.Connection, vm: str) -> None:
    """All of a VM, as a part of somebody's change."""
    names = [(_name(what, vm),) for what in (_ROLLBACK, _VOLUMES, _TRIMMED, _REHEARSED)]
    database.executemany("DELETE FROM meta WHERE name = ?", names)


def _name(what: str, vm: str) -> str:
    """In the table ``meta``."""
    return f"{what} {vm}"
