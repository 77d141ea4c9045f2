"""What has happened, in the order in which the server learned of it: for those who watch."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from headstart.server import tables
from headstart.server.call import Call

#: Kept for so long.
KEPT_SECONDS = 90 * 86400.0
_PAGE = 500
#: Which of PostgreSQL's locks of two numbers are ours.
_LOCK = 0x4845


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    vm: str | None
    facts: Mapping[str, Any]


def note(connection: Connection, call: Call, kind: str, vm: str | None, facts: Mapping[str, Any]) -> None:
    """Of the tenant of who calls."""
    note_all(connection, call, [Event(kind, vm, facts)])


def note_all(connection: Connection, call: Call, found: Iterable[Event]) -> None:
    """Last in a transaction that locks anything else: until it ends, no other one of the tenant notes events. So nobody
    sees an event before all of those with lower numbers are there to be seen."""
    rows = [
        {
            "tenant": call.who.tenant,
            "moment": call.now,
            "kind": each.kind[:32],
            "host": call.who.name[:64],
            "vm": each.vm,
            "facts": dict(each.facts),
        }
        for each in found
    ]
    if not rows:
        return
    # SQLite has one writer at a time anyway.
    if connection.dialect.name == "postgresql":
        number = zlib.crc32(str(call.who.tenant).encode()) - (1 << 31)
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK, number)))
    connection.execute(insert(tables.events), rows)


def is_noted(connection: Connection, call: Call, event: Event) -> bool:
    """Whether this one said the same before. For what is rare: all of that kind are looked at."""
    its = tables.events.c
    query = select(its.facts).where(
        its.tenant == call.who.tenant, its.kind == event.kind, its.host == call.who.name[:64]
    )
    return any(facts == dict(event.facts) for facts in connection.execute(query).scalars())


def after(connection: Connection, tenant: str, number: int, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Ascending, those with a higher number."""
    its = tables.events.c
    query = select(tables.events).where(its.tenant == tenant, its.id > number).order_by(its.id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def last(connection: Connection, tenant: str) -> int:
    """The number of the newest; 0 where there is none."""
    its = tables.events.c
    return connection.execute(select(func.max(its.id)).where(its.tenant == tenant)).scalar() or 0


def newest(connection: Connection, tenant: str, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Descending."""
    its = tables.events.c
    query = select(tables.events).where(its.tenant == tenant).order_by(its.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def forget_old(connection: Connection, now: float) -> None:
    connection.execute(delete(tables.events).where(tables.events.c.moment < now - KEPT_SECONDS))
