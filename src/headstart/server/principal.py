"""Who asks: a person with a cookie, a program or a host with a token."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from headstart import errors
from headstart.server import credentials, tables
from headstart.server.credentials import Kind, Token
from headstart.server.roles import Right, Role, allows

#: A use of a token is noted when the last note is so old.
_NOTED_SECONDS = 60.0
#: Asked for beside the repository itself, which was looked up for who asks.
_OF_OBJECTS = (Right.ADD, Right.READ, Right.DELETE)
_BOUND = "The token was made for one repository, and reaches nothing else. Use another one."


@dataclass(frozen=True, slots=True)
class Principal:
    """``tenant`` None: the site. ``name`` is for the audit log; ``id`` that of the person or token. ``repository`` and
    ``host``: all that a host's token, or a program's that was made for one repository, can reach. ``csrf``: what a
    page has to send back; empty for tokens, which no browser sends by itself. ``session``: the hash of a person's
    cookie. ``person``: the id of the one who asks, or who made the token."""

    id: str
    name: str
    role: Role
    tenant: str | None
    host: str | None = None
    repository: str | None = None
    csrf: str = ""
    session: str = ""
    person: str | None = None

    def require(self, right: Right) -> None:
        """Raises ``Denied``."""
        if not allows(self.role, right):
            raise errors.Denied(f"The role '{self.role}' has no right to do this. Ask an admin of the tenant.")
        if self.is_bound and right not in _OF_OBJECTS:
            raise errors.Denied(_BOUND)

    def of(self, right: Right, *, bound: bool = False) -> str:
        """The tenant, if there is the right to this in it. ``bound``: also for a program that can reach one repository
        alone; who says so shows it nothing of another one. Raises ``Denied``."""
        if self.is_bound and not bound:
            raise errors.Denied(_BOUND)
        if not allows(self.role, right):
            self.require(right)
        if self.tenant is None:
            raise errors.Denied("The site has no data of its own: name a tenant where that is possible.")
        return self.tenant

    @property
    def is_bound(self) -> bool:
        """A program that can reach one repository, and nothing else of the tenant's."""
        return self.repository is not None and self.role is not Role.HOST

    @property
    def is_person(self) -> bool:
        return bool(self.session)


class NobodyKnown(errors.WrongPassword):
    """No such token or session, or it has ended. Log in again, or get a new token."""


def of_token(connection: Connection, token: Token, now: float) -> Principal:
    """Of a token that is no join token. Raises ``NobodyKnown``."""
    row = connection.execute(select(tables.tokens).where(tables.tokens.c.id == token.id)).mappings().first()
    right = row is not None and row["kind"] == token.kind and credentials.same(token.secret, row["hash"])
    if row is None or not right or token.kind is Kind.JOIN or row["revoked"] or row["expires"] <= now:
        raise NobodyKnown("The token is wrong, has ended or was revoked. Get a new one.")
    return Principal(
        id=row["id"],
        name=f"{row['kind']}:{row['name']}",
        role=Role.HOST if token.kind is Kind.HOST else Role(row["role"]),
        tenant=row["tenant"],
        host=row["host"],
        repository=row["repository"],
        person=row["maker"],
    )


def note_use(connection: Connection, token_id: str, now: float) -> None:
    tokens = tables.tokens
    stale = (tokens.c.used.is_(None)) | (tokens.c.used < now - _NOTED_SECONDS)
    connection.execute(update(tokens).where(tokens.c.id == token_id, stale).values(used=now))


def of_session(connection: Connection, cookie: str, now: float) -> Principal:
    """Raises ``NobodyKnown``."""
    return of_hash(connection, credentials.hashed(cookie), now)


def of_hash(connection: Connection, session: str, now: float) -> Principal:
    """Of a session, by the hash of its cookie. Raises ``NobodyKnown``."""
    sessions, users = tables.sessions, tables.users
    query = (
        select(users.c.id, users.c.name, users.c.role, users.c.tenant, sessions.c.csrf)
        .join_from(sessions, users, sessions.c.user == users.c.id)
        .where(sessions.c.hash == session, sessions.c.expires > now, users.c.disabled.is_(False))
    )
    row = connection.execute(query).first()
    if row is None:
        raise NobodyKnown("The session has ended. Log in again.")
    return Principal(row.id, row.name, Role(row.role), row.tenant, csrf=row.csrf, session=session, person=row.id)
