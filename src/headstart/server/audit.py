"""The audit log: who did what to which object. Nothing of the API changes or removes an entry; the database's own
triggers refuse it, too."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from headstart.server import tables
from headstart.server.call import Call

_PAGE = 200


def note(connection: Connection, call: Call, act: str, subject: str, **facts: Any) -> None:
    """In the transaction of the act itself: neither is there without the other. ``facts`` hold no secret."""
    values = {
        "tenant": call.who.tenant,
        "moment": call.now,
        "actor": call.who.name,
        "address": call.address,
        "request": call.request,
        "act": act,
        "object": subject[:255],
        "facts": facts,
    }
    connection.execute(insert(tables.audit).values(values))


def page(connection: Connection, tenant: str | None, before: int | None, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Newest first, those with a lower number than ``before``; without a tenant those of the site."""
    log = tables.audit
    query = select(log).where(log.c.tenant == tenant).order_by(log.c.id.desc()).limit(min(limit, _PAGE))
    if before is not None:
        query = query.where(log.c.id < before)
    return [dict(row) for row in connection.execute(query).mappings()]
