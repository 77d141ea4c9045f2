"""What the server is still to be told: how far it was, kept in the state.

A run is told once it is over. Those of other VMs do not wait for one that is under way: such ones are remembered as
open, and looked at again. Of the minutes, the last one that was told is told again with the next, as it may have gone
on after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headstart.state.database import Database
from headstart.state.runs import Runs
from headstart.state.series import Minute
from headstart.state.values import Run

#: In the table ``meta``.
_TOLD, _ORDERS = "server told", "server orders"


@dataclass(frozen=True, slots=True)
class Told:
    """``run``: the highest number that was looked at; ``open``: those below it that were not over yet. ``minutes``: by
    VM, the last one that was told. ``publication``: the number of the last snapshot. ``host``: who we are at the
    server; another one was told nothing."""

    host: str
    run: int = 0
    open: tuple[int, ...] = ()
    publication: int = 0
    minutes: Mapping[str, int] = field(default_factory=dict)


class Outbox:
    """Usable from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._all = Runs(database)

    def told(self, host: str) -> Told:
        found = self._get(_TOLD)
        if not isinstance(found, dict) or found.get("host") != host:
            return Told(host)
        return Told(host, found["run"], tuple(found["open"]), found["publication"], found["minutes"])

    def put_told(self, told: Told) -> None:
        """The server has it."""
        self._put(_TOLD, {**asdict(told), "open": list(told.open), "minutes": dict(told.minutes)})

    def runs(self, told: Told, limit: int) -> tuple[list[Run], Told]:
        """Those to tell next, the oldest first, and how far that is; as far as it was where nothing is to be told."""
        marks = ",".join("?" * len(told.open))
        found = self._all.where(f"number IN ({marks}) ORDER BY number", *told.open)
        over, waiting = self._sorted(found[:limit])
        waiting += [run.number for run in found[limit:]]
        new = (
            self._all.where("number > ? ORDER BY number LIMIT ?", told.run, limit - len(over))
            if len(over) < limit
            else []
        )
        ready, pending = self._sorted(new)
        last = max((run.number for run in new), default=told.run)
        return over + ready, replace(told, run=last, open=tuple(sorted(waiting + pending)))

    def publications(self, told: Told, limit: int) -> tuple[list[dict[str, Any]], Told]:
        """As ``runs``: snapshots, as reports of backups tell of them; with ``place``, the address of the repository.
        And what ``rehearsed`` snapshots have shown."""
        query = "SELECT number, facts FROM publications WHERE number > ? ORDER BY number LIMIT ?"
        rows = self._database.rows(query, told.publication, limit)
        last = max((row[0] for row in rows), default=told.publication)
        return [json.loads(row[1]) for row in rows], replace(told, publication=last)

    def _sorted(self, found: Iterable[Run]) -> tuple[list[Run], list[int]]:
        """Those that are over, and the numbers of those that may be under way: the newest of their VM."""
        over: list[Run] = []
        waiting: list[int] = []
        for run in found:
            if run.ended is None and self._is_newest(run):
                waiting.append(run.number)
            else:
                over.append(run)
        return over, waiting

    def _is_newest(self, run: Run) -> bool:
        query = "SELECT max(number) FROM runs WHERE vm = ?"
        there = self._database.rows("SELECT 1 FROM vms WHERE name = ?", run.vm)
        return bool(there) and bool(self._database.rows(query, run.vm)[0][0] == run.number)

    def minutes(self, vm: str, since: int, limit: int) -> list[Minute]:
        """From ``since`` on, ascending; none where that is the last one."""
        query = "SELECT * FROM figures WHERE vm = ? AND moment >= ? ORDER BY moment LIMIT ?"
        found = [Minute(*row[1:]) for row in self._database.rows(query, vm, since, limit)]
        return [] if len(found) == 1 and found[0].moment == since else found

    # -- orders in hand

    def orders(self) -> dict[str, dict[str, Any]]:
        """By id, what ``put_orders`` was given last."""
        found = self._get(_ORDERS)
        return found if isinstance(found, dict) else {}

    def put_orders(self, orders: Mapping[str, Mapping[str, Any]]) -> None:
        """Durable when this returns: what was begun must be known to have been begun, also after a power cut."""
        with self._database.durable():
            self._put(_ORDERS, orders)

    def _get(self, name: str) -> Any:
        rows = self._database.rows("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def _put(self, name: str, value: Any) -> None:
        with self._database.change() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))
