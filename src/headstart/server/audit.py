"""The audit log: who did what to which object. Nothing of the API changes or removes an entry; the database's own
triggers refuse it, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, insert, select

from headstart.server import tables
from headstart.server.call import Call
from headstart.server.roles import Right

_PAGE = 200
#: Lines of one export.
LONGEST_EXPORT = 10_000


def note(connection: Connection, call: Call, act: str, subject: str, **facts: Any) -> None:
    """In the transaction of the act itself: neither is there without the other. ``facts`` hold no secret."""
    _insert(connection, call, call.who.tenant, act, subject, facts)


def note_for(connection: Connection, call: Call, tenant: str, act: str, subject: str, **facts: Any) -> None:
    """What the site does to a tenant, in the site's log and in the tenant's own."""
    for log in dict.fromkeys((call.who.tenant, tenant)):
        _insert(connection, call, log, act, subject, facts)


def _insert(
    connection: Connection, call: Call, tenant: str | None, act: str, subject: str, facts: dict[str, Any]
) -> None:
    told = {**facts, "approved": call.approved} if call.approved else facts
    values = {
        "tenant": tenant,
        "moment": call.now,
        "actor": call.who.name[:128],
        "address": call.address[:64],
        "request": call.request,
        "act": act,
        "object": subject[:255],
        "facts": told,
    }
    connection.execute(insert(tables.audit).values(values))


def require_reader(call: Call) -> None:
    """Admins read: those of the site the site's, those of a tenant their own. Raises ``Denied``."""
    if call.who.tenant is None:
        call.who.require(Right.SITE)
    else:
        call.who.of(Right.CONFIGURE)


def page(connection: Connection, tenant: str | None, before: int | None, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Newest first, those with a lower number than ``before``; without a tenant those of the site."""
    log = tables.audit
    query = select(log).where(log.c.tenant == tenant).order_by(log.c.id.desc()).limit(min(limit, _PAGE))
    if before is not None:
        query = query.where(log.c.id < before)
    return [dict(row) for row in connection.execute(query).mappings()]


def lines(connection: Connection, tenant: str | None, after: int, limit: int) -> Iterator[str]:
    """Oldest first, those with a higher number than ``after``, as JSON."""
    log = tables.audit
    query = select(log).where(log.c.tenant == tenant, log.c.id > after).order_by(log.c.id)
    for row in connection.execute(query.limit(min(limit, LONGEST_EXPORT))).mappings():
        yield json.dumps(dict(row), ensure_ascii=False) + "\n"
