"""Failed attempts to log in, counted over all processes: after some, each key has to wait."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.server import tables

#: So many in so many seconds.
ALLOWED, SECONDS = 10, 900.0


def require(connection: Connection, keys: Sequence[str], now: float) -> None:
    """Raises ``TooOften``."""
    its = tables.attempts.c
    query = select(its.since).where(its.key.in_(keys), its.count >= ALLOWED, its.since > now - SECONDS)
    waits = [since + SECONDS - now for since in connection.execute(query).scalars()]
    if waits:
        raise errors.TooOften("There were too many failed attempts. Wait a while.", seconds=max(waits))


def failed(connection: Connection, keys: Sequence[str], now: float) -> None:
    its = tables.attempts.c
    connection.execute(delete(tables.attempts).where(its.since <= now - SECONDS))
    for key in keys:
        done = connection.execute(update(tables.attempts).where(its.key == key).values(count=its.count + 1))
        if not done.rowcount:
            connection.execute(insert(tables.attempts).values(key=key, count=1, since=now))


def succeeded(connection: Connection, keys: Sequence[str]) -> None:
    connection.execute(delete(tables.attempts).where(tables.attempts.c.key.in_(keys)))
