"""People put straight into a server's database, by its own functions, as over its API; but that no password is hashed
or looked at: a fifth of a second of a processor each time, on purpose. What passwords do, and how people come in by
them, is in tests/server/test_people.py."""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, select, update

from headstart.server import logins, passwords, tables, tenants, users
from headstart.server.call import Call
from headstart.server.database import Database
from headstart.server.logins import Visit
from headstart.server.roles import Role

PASSWORD = "a password of theirs"


@contextlib.contextmanager
def writing(url: str) -> Iterator[Connection]:
    """A transaction in the database of a server that may be running."""
    with contextlib.closing(Database(url)) as database, database.write() as connection:
        yield connection


def tenant(connection: Connection, by: str, name: str) -> str:
    """Its id. ``by``: the name of who makes it."""
    return tenants.create(connection, _call(_row(connection, by)), name)


def user(connection: Connection, by: str, name: str, role: str, tenant: str) -> str:
    """The id of somebody with ``PASSWORD``. ``by``: the name of who makes them."""
    made = users.create(connection, _call(_row(connection, by)), name, None, Role(role), tenant)
    connection.execute(update(tables.users).where(tables.users.c.id == made).values(password=_hashed()))
    return made


def session(connection: Connection, name: str) -> dict[str, str]:
    """Headers of somebody who has just logged in."""
    found, now = _row(connection, name), time.time()
    connection.execute(update(tables.users).where(tables.users.c.id == found["id"]).values(seen=now))
    begun = logins.begin(connection, found, _visit(), now)
    return {"Cookie": f"__Host-headstart={begun.cookie}", "X-Csrf-Token": begun.csrf}


@functools.cache
def _hashed() -> str:
    return passwords.hashed(PASSWORD)


def _row(connection: Connection, name: str) -> Any:
    return connection.execute(select(tables.users).where(tables.users.c.name == name)).mappings().one()


def _call(row: Any) -> Call:
    return logins.call_of(row, _visit(), time.time())


def _visit() -> Visit:
    return Visit("127.0.0.1", secrets.token_hex(8))
