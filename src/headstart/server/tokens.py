"""Tokens of machines: made for a time, for one purpose, told once, kept as a hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from headstart import errors
from headstart.server import audit, credentials, ids, repositories, tables
from headstart.server.call import Call
from headstart.server.credentials import Kind, Token
from headstart.server.roles import GIVEN, Right, Role

DAY = 86400.0
#: What a token lives at most, by kind.
LONGEST = {Kind.JOIN: 7 * DAY, Kind.HOST: 90 * DAY, Kind.API: 366 * DAY}


@dataclass(frozen=True, slots=True)
class Wish:
    """``role``, of programs; ``repository``: of hosts that join with it, and all that a program can reach, if given."""

    kind: Kind
    name: str
    seconds: float
    role: Role | None = None
    repository: str | None = None


def create(connection: Connection, call: Call, wish: Wish, fingerprint: str = "") -> Token:
    """By an admin of the tenant. Raises ``Usage``, ``NotFound``."""
    tenant = call.who.of(Right.CONFIGURE)
    if wish.kind is Kind.HOST:
        raise errors.Usage("A host gets its token by joining: make a token of the kind 'join'.")
    if (wish.kind is Kind.API) != (wish.role is not None) or (wish.role is not None and wish.role not in GIVEN):
        raise errors.Usage("A token of the kind 'api' takes a role: viewer, operator or admin. Another one takes none.")
    if wish.kind is Kind.JOIN and wish.repository is None:
        raise errors.Usage("A token to join with names the repository of the host.")
    place = None if wish.repository is None else repositories.get(connection, call.who, wish.repository)
    token = insert_token(connection, call, wish, tenant, None if place is None else place.id, None)
    return Token(token.kind, token.id, token.secret, fingerprint if wish.kind is Kind.JOIN else "")


def insert_token(
    connection: Connection, call: Call, wish: Wish, tenant: str, repository: str | None, host: str | None
) -> Token:
    if not 0 < wish.seconds <= LONGEST[wish.kind]:
        raise errors.Usage(f"A token of the kind '{wish.kind}' lives {LONGEST[wish.kind] / DAY:.0f} days at most.")
    token = Token(wish.kind, ids.new(), credentials.new_secret())
    connection.execute(
        insert(tables.tokens).values(
            id=token.id,
            tenant=tenant,
            host=host,
            repository=repository,
            kind=wish.kind,
            name=wish.name,
            role=wish.role,
            hash=credentials.hashed(token.secret),
            maker=call.who.person,
            created=call.now,
            expires=call.now + wish.seconds,
            revoked=False,
        )
    )
    facts = {"kind": wish.kind, "name": wish.name, "role": wish.role, "expires": call.now + wish.seconds}
    audit.note(connection, call, "token.create", token.id, **facts, repository=repository)
    return token


def listed(connection: Connection, call: Call) -> list[dict[str, Any]]:
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.tokens.c
    columns = (
        *(its.id, its.kind, its.name, its.role, its.repository, its.host),
        *(its.created, its.expires, its.used, its.revoked),
    )
    query = select(*columns).where(its.tenant == tenant).order_by(its.created.desc())
    return [dict(row) for row in connection.execute(query).mappings()]


def revoke(connection: Connection, call: Call, token: str) -> None:
    """Raises ``NotFound``."""
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.tokens.c
    done = connection.execute(update(tables.tokens).where(its.id == token, its.tenant == tenant).values(revoked=True))
    if not done.rowcount:
        raise errors.NotFound(f"There is no token {token!r} here.")
    audit.note(connection, call, "token.revoke", token)


def spend(connection: Connection, token: Token, now: float) -> dict[str, Any]:
    """The row of a token to join with, which serves once. Raises ``WrongPassword``."""
    its = tables.tokens.c
    row = connection.execute(select(tables.tokens).where(its.id == token.id)).mappings().first()
    right = row is not None and row["kind"] == Kind.JOIN and credentials.same(token.secret, row["hash"])
    if row is None or not right or row["expires"] <= now:
        raise errors.WrongPassword("That token does not join a host, or its time is over. Get a new one.")
    done = connection.execute(
        update(tables.tokens).where(its.id == token.id, its.revoked.is_(False)).values(revoked=True, used=now)
    )
    if not done.rowcount:
        raise errors.WrongPassword("That token was used or revoked. Get a new one: each joins one host.")
    return dict(row)
