"""Failed attempts to log in, counted over all processes: after some, each key has to wait.

An attempt is counted before the password is looked at, so that many at once are not more than one after the other, and
taken back when it was right.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, exc, insert, or_, select, update

from headstart import errors
from headstart.server import limits, tables

SECONDS = 900.0
#: So many in ``SECONDS``: from one address against one name, against one name from anywhere, from one address.
ALLOWED_PAIR, ALLOWED_NAME, ALLOWED_ADDRESS = 10, 30, 50


def keys(name: str, address: str) -> dict[str, int]:
    """How many failures each of what an attempt counts for may have."""
    shown, place = name[:48], limits.place(address)[:48]
    return {
        f"pair:{shown}@{place}": ALLOWED_PAIR,
        f"user:{shown}": ALLOWED_NAME,
        f"address:{place}": ALLOWED_ADDRESS,
    }


def of_address(address: str) -> dict[str, int]:
    """Where no name is said."""
    return {f"address:{limits.place(address)[:48]}": ALLOWED_ADDRESS}


def begin(connection: Connection, allowed: Mapping[str, int], now: float) -> None:
    """Count one as failed. Raises ``TooOften``, and counts nothing then."""
    its = tables.attempts.c
    # Also what is of a clock that was ahead: nobody is to wait until it is right.
    old = or_(its.since <= now - SECONDS, its.since > now + SECONDS)
    connection.execute(delete(tables.attempts).where(old))
    # In one order, so that two at once wait for each other and do not lock each other out.
    for key in sorted(allowed):
        count = update(tables.attempts).where(its.key == key).values(count=its.count + 1)
        if not connection.execute(count).rowcount:
            try:
                with connection.begin_nested():
                    connection.execute(insert(tables.attempts).values(key=key, count=1, since=now))
            except exc.IntegrityError:
                connection.execute(count)
    query = select(its.key, its.count, its.since).where(its.key.in_(list(allowed)))
    rows = connection.execute(query).mappings()
    waits = [row["since"] + SECONDS - now for row in rows if row["count"] > allowed[row["key"]]]
    if waits:
        raise errors.TooOften("There were too many failed attempts. Wait a while.", seconds=max(waits))


def taken_back(connection: Connection, allowed: Mapping[str, int]) -> None:
    """One that was right, and proves nothing of those before it."""
    its = tables.attempts.c
    for key in sorted(allowed):
        connection.execute(update(tables.attempts).where(its.key == key).values(count=its.count - 1))


def succeeded(connection: Connection, allowed: Mapping[str, int]) -> None:
    """Take one back; what was tried against that name is forgiven."""
    its = tables.attempts.c
    for key in sorted(allowed):
        if key.startswith("address:"):
            taken_back(connection, {key: allowed[key]})
        else:
            connection.execute(delete(tables.attempts).where(its.key == key))
