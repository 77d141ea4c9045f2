"""What has happened, in the order in which the server learned of it: for those who watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from headstart.server import tables
from headstart.server.call import Call

#: Kept for so long.
KEPT_SECONDS = 90 * 86400.0
_PAGE = 500


def note(connection: Connection, call: Call, kind: str, vm: str | None, facts: Mapping[str, Any]) -> None:
    """Of the tenant of who calls."""
    connection.execute(
        insert(tables.events).values(
            tenant=call.who.tenant, moment=call.now, kind=kind[:32], host=call.who.name[:64], vm=vm, facts=dict(facts)
        )
    )


def after(connection: Connection, tenant: str, number: int, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Ascending, those with a higher number."""
    its = tables.events.c
    query = select(tables.events).where(its.tenant == tenant, its.id > number).order_by(its.id).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def newest(connection: Connection, tenant: str, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Descending."""
    its = tables.events.c
    query = select(tables.events).where(its.tenant == tenant).order_by(its.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def forget_old(connection: Connection, now: float) -> None:
    connection.execute(delete(tables.events).where(tables.events.c.moment < now - KEPT_SECONDS))
