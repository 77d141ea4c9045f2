"""Admins of the site, made on the server's own machine: whoever may write its data may that."""

from __future__ import annotations

from sqlalchemy import delete, select, update

from headstart import errors
from headstart.server import audit, passwords, site, tables, users
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings

#: Who is at the machine itself.
CONSOLE = Principal("console", "console", Role.SITE, None)


def put(settings: Settings, name: str, password: str) -> bool:
    """Whether it is a new one. One that is there gets the password, and no second factor: that was lost, too.

    Raises ``TargetRefused`` where the name is somebody's of a tenant."""
    opened = site.open_site(settings)
    call = Call(CONSOLE, opened.clock(), "console")
    with opened.database.write() as connection:
        its = tables.users.c
        row = connection.execute(select(its.id, its.tenant).where(its.name == name)).first()
        if row is None:
            users.create(connection, call, name, password, Role.SITE, None)
            return True
        if row.tenant is not None:
            raise errors.TargetRefused(f"{name!r} is somebody of a tenant. Choose another name.")
        values = {"password": passwords.hashed(password), "totp": None, "disabled": False}
        connection.execute(update(tables.users).where(its.id == row.id).values(values))
        connection.execute(delete(tables.sessions).where(tables.sessions.c.user == row.id))
        audit.note(connection, call, "user.password", row.id, name=name)
    return False
