"""Appliances that this host has worked with: each has a number, by which the journal knows what it delivered."""

from __future__ import annotations

import json
from dataclasses import asdict

from headstart.state.database import Database
from headstart.state.values import FIRST_APPLIANCE, Distrust

_PREFIX = "appliance "


def number(database: Database, name: str) -> int:
    """Of the appliance with this address, now and for ever."""
    with database.change() as change:
        found = change.execute("SELECT value FROM meta WHERE name = ?", (_PREFIX + name,)).fetchone()
        if found:
            return int(json.loads(found[0])["number"])
        known = [json.loads(value)["number"] for (value,) in change.execute(_ALL, (f"{_PREFIX}%",))]
        new = max(known, default=FIRST_APPLIANCE - 1) + 1
        change.execute("INSERT INTO meta VALUES (?, ?)", (_PREFIX + name, json.dumps({"number": new})))
        return int(new)


def names(database: Database) -> dict[int, str]:
    """Their addresses."""
    rows = database.rows("SELECT name, value FROM meta WHERE name LIKE ?", f"{_PREFIX}%")
    return {int(json.loads(value)["number"]): name.removeprefix(_PREFIX) for name, value in rows}


def distrust(database: Database, name: str, found: Distrust) -> None:
    """It is not used until ``trust``."""
    _put(database, name, {"number": number(database, name), **asdict(found)})


def distrusted(database: Database, name: str) -> Distrust | None:
    """None: nothing false was found of it, or it is trusted again."""
    rows = database.rows("SELECT value FROM meta WHERE name = ?", _PREFIX + name)
    told = json.loads(rows[0][0]) if rows else {}
    return Distrust(told["since"], told["reason"]) if "reason" in told else None


def trust(database: Database, name: str) -> Distrust | None:
    """Use it again. Returns what was held against it."""
    found = distrusted(database, name)
    if found is not None:
        _put(database, name, {"number": number(database, name)})
    return found


def _put(database: Database, name: str, told: dict[str, object]) -> None:
    with database.change() as change:
        change.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_PREFIX + name, json.dumps(told)))


_ALL = "SELECT value FROM meta WHERE name LIKE ?"
