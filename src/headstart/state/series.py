"""What was measured and learned of VMs over days. Losing it costs some peace and some copies, never data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from headstart.state.database import Database

MINUTE = 60
#: Kept for: a week for what is usual, and a day to look back at the same weekday.
KEPT_SECONDS = 8 * 24 * 3600
#: What is of a clock that was ahead goes when it lies so far ahead.
AHEAD_SECONDS = 24 * 3600
#: With each row that comes a few go at most: a clock that is wrong for an hour does not empty the table.
GOING = 2


@dataclass(frozen=True, slots=True)
class Minute:
    """``moment``: its beginning, seconds since 1970. ``load`` and ``latency`` (seconds) are means, None: not known.
    Bytes: ``copied`` ahead in it; ``remaining`` and of these ``deferred`` at its end. ``state`` of the governor."""

    moment: int
    load: float | None
    latency: float | None
    state: str
    copied: int
    remaining: int
    deferred: int


class Series:
    """Usable from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, vm: str, minute: Minute) -> None:
        """One that is there already is replaced: a clock may be put back. Old ones go. The VM may be gone."""
        insert = "INSERT OR REPLACE INTO figures SELECT name, ?, ?, ?, ?, ?, ?, ? FROM vms WHERE name = ?"
        with self._database.change() as database:
            database.execute(insert, (*astuple(minute), vm))
            for which, moment, order in (
                ("<", minute.moment - KEPT_SECONDS, ""),
                (">", minute.moment + AHEAD_SECONDS, "DESC"),
            ):
                found = f"SELECT moment FROM figures WHERE vm = ? AND moment {which} ? ORDER BY moment {order} LIMIT ?"
                database.execute(f"DELETE FROM figures WHERE vm = ? AND moment IN ({found})", (vm, vm, moment, GOING))

    def minutes(self, vm: str, since: float, until: float) -> list[Minute]:
        """Ascending."""
        query = "SELECT * FROM figures WHERE vm = ? AND moment >= ? AND moment < ? ORDER BY moment"
        return [Minute(*row[1:]) for row in self._database.rows(query, vm, since, until)]

    def loads(self, vm: str, since: float, until: float, seconds: int) -> list[float]:
        """Means of so many seconds each, ascending, without those in which nothing was measured."""
        query = (
            "SELECT avg(load) FROM figures WHERE vm = ? AND moment >= ? AND moment <= ? AND load IS NOT NULL "
            "GROUP BY moment / ? ORDER BY moment / ?"
        )
        return [row[0] for row in self._database.rows(query, vm, since, until, seconds, seconds)]

    def latencies(self, vm: str, since: float, until: float) -> list[float]:
        """The guest's own, of minutes in which nothing was copied; seconds."""
        query = (
            "SELECT latency FROM figures WHERE vm = ? AND moment >= ? AND moment <= ? AND copied = 0"
            " AND latency IS NOT NULL"
        )
        return [row[0] for row in self._database.rows(query, vm, since, until)]

    def heats(self, vm: str) -> dict[str, tuple[bytes, str]]:
        """By disk: what ``keep_heats`` was given."""
        rows = self._database.rows("SELECT disk, heat, learned FROM heats WHERE vm = ?", vm)
        return {disk: (heat, learned) for disk, heat, learned in rows}

    def keep_heats(self, vm: str, heats: Mapping[str, tuple[bytes, str]]) -> None:
        """Heat and what was learned, by disk; these and no others any longer. The VM may be gone."""
        with self._database.change() as database:
            database.execute("DELETE FROM heats WHERE vm = ?", (vm,))
            values = ((disk, heat, learned, vm) for disk, (heat, learned) in heats.items())
            database.executemany("INSERT INTO heats SELECT name, ?, ?, ? FROM vms WHERE name = ?", values)

    def pause(self, vm: str, since: float) -> None:
        with self._database.change() as database:
            database.execute("INSERT OR IGNORE INTO pauses SELECT name, ? FROM vms WHERE name = ?", (since, vm))

    def resume(self, vm: str) -> None:
        with self._database.change() as database:
            database.execute("DELETE FROM pauses WHERE vm = ?", (vm,))

    def paused(self, vm: str) -> bool:
        return bool(self._database.rows("SELECT 1 FROM pauses WHERE vm = ?", vm))
