"""Admins of the site, made on the server's own machine: whoever may write its data may that. An admin of a tenant who
is locked out is let in again there, too: the site's admins cannot do it from afar."""

from __future__ import annotations

import contextlib

from sqlalchemy import delete, select, update

from headstart import errors
from headstart.server import audit, entry, passwords, site, tables, users
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings

#: Who is at the machine itself.
CONSOLE = Principal("console", "console", Role.SITE, None)


def put(settings: Settings, name: str, password: str) -> bool:
    """Whether it is a new one of the site. One that is there, also an admin of a tenant, gets the password, and no
    second factor or account at a provider: those were lost, too.

    Raises ``TargetRefused`` where the name is of somebody of a tenant who is no admin."""
    opened = site.open_site(settings)
    call = Call(CONSOLE, opened.clock(), "console")
    with contextlib.closing(opened.database), opened.database.write() as connection:
        its = tables.users.c
        row = connection.execute(select(its.id, its.tenant, its.role).where(its.name == name)).first()
        if row is None:
            users.create(connection, call, name, password, Role.SITE, None)
            return True
        if row.tenant is not None and row.role != Role.ADMIN:
            raise errors.TargetRefused(f"{name!r} is somebody of a tenant, and no admin there. Choose another name.")
        values = {"password": passwords.hashed(password), "totp": None, "totp_new": None, "disabled": False}
        connection.execute(update(tables.users).where(its.id == row.id).values(values))
        connection.execute(delete(tables.sessions).where(tables.sessions.c.user == row.id))
        entry.forget_accounts(connection, row.id)
        if row.tenant is not None:
            audit.note_for(connection, call, row.tenant, "user.reset", row.id, name=name, password=True)
        else:
            audit.note(connection, call, "user.reset", row.id, name=name, password=True)
    return False
