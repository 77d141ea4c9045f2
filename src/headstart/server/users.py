"""People: who they are, what they may, and how they log in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.server import attempts, audit, credentials, ids, passwords, tables
from headstart.server.call import Call
from headstart.server.principal import NobodyKnown, Principal
from headstart.server.roles import GIVEN, Right, Role
from headstart.server.sealing import Sealer
from headstart.server.tenants import BAD_NAME

#: A session ends after so long, whatever is done in it.
SESSION_SECONDS = 12 * 3600.0
_TOTP = "totp"
_WRONG = "Name, password or code are not right."


@dataclass(frozen=True, slots=True)
class Session:
    """``cookie`` is told once, to the browser."""

    cookie: str
    csrf: str
    expires: float


def create(connection: Connection, call: Call, name: str, password: str, role: Role, tenant: str | None) -> str:
    """Of one's own tenant by its admin; of the site, and the first admin of a tenant, by the site's."""
    _require_may_give(call.who, role, tenant)
    if not ids.is_name(name):
        raise errors.Usage(BAD_NAME)
    if connection.execute(select(tables.users.c.id).where(tables.users.c.name == name)).first():
        raise errors.TargetRefused(f"The name {name!r} is taken. Choose another one.")
    user = ids.new()
    connection.execute(
        insert(tables.users).values(
            id=user,
            tenant=tenant,
            name=name,
            role=role,
            password=passwords.hashed(password),
            disabled=False,
            created=call.now,
        )
    )
    audit.note(connection, call, "user.create", user, name=name, role=role, of=tenant)
    return user


def _require_may_give(who: Principal, role: Role, tenant: str | None) -> None:
    if who.tenant is None:
        who.require(Right.SITE)
        if role is not (Role.SITE if tenant is None else Role.ADMIN):
            raise errors.Usage("The site makes admins: of itself, and the first ones of tenants.")
        return
    who.require(Right.CONFIGURE)
    if tenant != who.tenant or role not in GIVEN:
        raise errors.Denied("An admin gives roles of the own tenant: viewer, operator, admin.")


def listed(connection: Connection, call: Call) -> list[dict[str, Any]]:
    """Those of the own tenant, or of the site."""
    its = tables.users.c
    columns = (its.id, its.name, its.role, its.disabled, its.created, its.seen, its.totp.is_not(None).label("totp"))
    query = select(*columns).where(its.tenant == call.who.tenant).order_by(its.name)
    return [dict(row) for row in connection.execute(query).mappings()]


def remove(connection: Connection, call: Call, user: str) -> None:
    """Raises ``NotFound``; ``Usage`` for oneself: somebody has to be left."""
    if call.who.tenant is not None:
        call.who.require(Right.CONFIGURE)
    if user == call.who.id:
        raise errors.Usage("Nobody removes himself. Another admin does.")
    its = tables.users.c
    found = connection.execute(delete(tables.users).where(its.id == user, its.tenant == call.who.tenant))
    if not found.rowcount:
        raise errors.NotFound(f"There is no user {user!r} here.")
    audit.note(connection, call, "user.remove", user)


def log_in(
    connection: Connection, sealer: Sealer, name: str, password: str, code: str, now: float, address: str
) -> Session:
    """Raises ``NobodyKnown``, alike for every reason; ``TooOften``. Commit also then: failures are counted."""
    attempts.require(connection, (f"user:{name[:64]}", f"address:{address}"), now)
    its = tables.users.c
    row = connection.execute(select(tables.users).where(its.name == name)).mappings().first()
    right = passwords.is_right(passwords.NOBODY if row is None else row["password"], password)
    step = None
    if row is not None and row["totp"] is not None:
        secret = sealer.open(_TOTP, row["totp"]).decode()
        step = passwords.totp_step(secret, code, now, row["totp_step"])
        right = right and step is not None
    if row is None or not right or row["disabled"]:
        attempts.failed(connection, (f"user:{name[:64]}", f"address:{address}"), now)
        raise NobodyKnown(_WRONG)
    attempts.succeeded(connection, (f"user:{name[:64]}",))
    change = update(tables.users).where(its.id == row["id"])
    connection.execute(change.values(seen=now, **({} if step is None else {"totp_step": step})))
    return _begin_session(connection, row["id"], now)


def _begin_session(connection: Connection, user: str, now: float) -> Session:
    session = Session(credentials.new_secret(), credentials.new_secret(), now + SESSION_SECONDS)
    connection.execute(delete(tables.sessions).where(tables.sessions.c.expires < now))
    connection.execute(
        insert(tables.sessions).values(
            hash=credentials.hashed(session.cookie), user=user, csrf=session.csrf, created=now, expires=session.expires
        )
    )
    return session


def log_out(connection: Connection, cookie: str) -> None:
    connection.execute(delete(tables.sessions).where(tables.sessions.c.hash == credentials.hashed(cookie)))
