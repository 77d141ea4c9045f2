"""What lets somebody in: a password, or an account at the provider."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, select

from headstart.server import tables


def is_linked() -> ColumnElement[bool]:
    """Of a row of ``users``, in a query of those."""
    its = tables.identities.c
    return select(its.user).where(its.user == tables.users.c.id).exists()


def is_open() -> ColumnElement[bool]:
    """The same: whether there is any way in. Who was invited and has not come has none, and can let nobody else in."""
    its = tables.users.c
    return its.disabled.is_(False) & (its.password.is_not(None) | is_linked())


def forget_accounts(connection: Connection, user: str) -> None:
    """What a provider's account opens, and what an invitation would."""
    for table in (tables.identities, tables.invitations):
        connection.execute(delete(table).where(table.c.user == user))
