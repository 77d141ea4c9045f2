"""How people log in and out, and change what they log in with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.server import attempts, audit, credentials, ids, passwords, tables, users
from headstart.server.call import Call
from headstart.server.principal import NobodyKnown, Principal
from headstart.server.roles import Role
from headstart.server.sealing import Sealer
from headstart.server.site import Site

#: A session ends after so long, whatever is done in it.
SESSION_SECONDS = 12 * 3600.0
_TOTP, _TOTP_NEW = "totp", "totp-new"
_WRONG = "Name, password or code are not right."


@dataclass(frozen=True, slots=True)
class Session:
    """``cookie`` is told once, to the browser."""

    cookie: str
    csrf: str
    expires: float


@dataclass(frozen=True, slots=True)
class Visit:
    """From where, and in which request. ``before``: the cookie of a session that the browser has already: it ends."""

    address: str
    request: str
    before: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    name: str
    password: str
    code: str
    visit: Visit


def log_in(here: Site, attempt: Attempt) -> Session:
    """Raises ``NobodyKnown``, alike for every reason; ``TooOften``. The password is looked at outside of transactions:
    it takes a while, and SQLite has one writer."""
    now = here.clock()
    allowed = attempts.keys(attempt.name, attempt.visit.address)
    with here.database.write() as connection:
        attempts.begin(connection, allowed, now)
        row = connection.execute(select(tables.users).where(tables.users.c.name == attempt.name)).mappings().first()
    # Of nobody's name a password is looked at as well, so that the time of the answer does not tell.
    kept = None if row is None else row["password"]
    right = passwords.is_right(kept or passwords.NOBODY, attempt.password)
    step = None if row is None else _step(here.sealer, row, attempt.code, now)
    with here.database.write() as connection:
        if row is not None and right and step is not None and not row["disabled"] and _take(connection, row, step, now):
            attempts.succeeded(connection, allowed)
            return begin(connection, row, attempt.visit, now)
        refuse(connection, row, attempt.visit, now)
    raise NobodyKnown(_WRONG)


def _step(sealer: Sealer, row: Any, code: str, now: float) -> int | None:
    """Of the code; 0 where none is needed, None where it is wrong."""
    if row["totp"] is None:
        return 0
    return passwords.totp_step(sealer.open(_TOTP, row["totp"]).decode(), code, now, row["totp_step"])


def _take(connection: Connection, row: Any, step: int, now: float) -> bool:
    """False where somebody else was let in with the same code, or what was looked at is not so any longer."""
    its = tables.users.c
    same = (its.id == row["id"], its.password == row["password"], its.disabled.is_(False))
    change = update(tables.users).where(*same)
    if row["totp"] is None:
        return connection.execute(change.where(its.totp.is_(None)).values(seen=now)).rowcount > 0
    return connection.execute(change.where(its.totp_step < step).values(seen=now, totp_step=step)).rowcount > 0


def _principal(row: Any) -> Principal:
    if row is None:
        return Principal("", "", Role.VIEWER, None)
    return Principal(row["id"], row["name"], Role(row["role"]), row["tenant"], person=row["id"])


def call_of(row: Any, visit: Visit, now: float) -> Call:
    """Of somebody who logs in just now; of nobody where ``row`` is None."""
    return Call(_principal(row), now, visit.address, visit.request)


def refuse(connection: Connection, row: Any, visit: Visit, now: float, **facts: str) -> None:
    audit.note(connection, call_of(row, visit, now), "session.refuse", "" if row is None else row["id"], **facts)


def begin(connection: Connection, row: Any, visit: Visit, now: float, **facts: str) -> Session:
    """Of somebody who has shown who he is, and may log in."""
    session = Session(credentials.new_secret(), credentials.new_secret(), now + SESSION_SECONDS)
    its = tables.sessions.c
    ended = (its.expires < now) | (its.hash == credentials.hashed(visit.before))
    connection.execute(delete(tables.sessions).where(ended))
    connection.execute(
        insert(tables.sessions).values(
            hash=credentials.hashed(session.cookie),
            user=row["id"],
            csrf=session.csrf,
            address=visit.address[:64],
            created=now,
            expires=session.expires,
        )
    )
    audit.note(connection, call_of(row, visit, now), "session.begin", row["id"], **facts)
    return session


# -- of oneself


def require_person(call: Call) -> str:
    if not call.who.is_person:
        raise errors.Denied("This is for people who have logged in, and not for tokens.")
    return call.who.id


def log_out(connection: Connection, call: Call) -> None:
    user = require_person(call)
    connection.execute(delete(tables.sessions).where(tables.sessions.c.hash == call.who.session))
    audit.note(connection, call, "session.end", user)


def sessions(connection: Connection, call: Call) -> list[dict[str, Any]]:
    """One's own. The ``id`` is the beginning of a hash, and opens nothing."""
    user = require_person(call)
    its = tables.sessions.c
    query = select(its.hash, its.address, its.created, its.expires).where(its.user == user, its.expires > call.now)
    return [
        {
            "id": row.hash[:32],
            "address": row.address,
            "created": row.created,
            "expires": row.expires,
            "this": row.hash == call.who.session,
        }
        for row in connection.execute(query.order_by(its.created))
    ]


def end_session(connection: Connection, call: Call, session: str) -> None:
    """Raises ``NotFound``."""
    user = require_person(call)
    its = tables.sessions.c
    wanted = session if ids.is_id(session) else "-"
    ended = delete(tables.sessions).where(its.user == user, its.hash.startswith(wanted, autoescape=True))
    if not connection.execute(ended).rowcount:
        raise errors.NotFound(f"There is no session {session[:64]!r} of yours.")
    audit.note(connection, call, "session.end", user, session=session)


def require_password(here: Site, call: Call, password: str) -> None:
    """Whoever found a browser open has a session, and no password. Raises ``Denied``, ``TooOften``."""
    user = require_person(call)
    allowed = attempts.keys(call.who.name, call.address)
    with here.database.write() as connection:
        attempts.begin(connection, allowed, call.now)
        kept = connection.execute(select(tables.users.c.password).where(tables.users.c.id == user)).scalar()
    if kept is None:
        raise errors.Denied("You have no password here. Another admin gives you one, by a reset.")
    if not passwords.is_right(kept, password):
        with here.database.write() as connection:
            audit.note(connection, call, "session.refuse", user)
        raise errors.Denied("The password is not right.")
    with here.database.write() as connection:
        attempts.succeeded(connection, allowed)


def change_password(here: Site, call: Call, old: str, new: str) -> None:
    """Other sessions end."""
    require_password(here, call, old)
    kept = passwords.hashed(new)
    with here.database.write() as connection:
        connection.execute(update(tables.users).where(tables.users.c.id == call.who.id).values(password=kept))
        users.end_sessions(connection, call.who.id, but=call.who.session)
        audit.note(connection, call, "user.password", call.who.id)


def begin_totp(here: Site, call: Call, password: str) -> str:
    """The secret, told once. It counts from ``confirm_totp`` on; one that is there goes on until then."""
    require_password(here, call, password)
    secret = passwords.new_totp()
    with here.database.write() as connection:
        sealed = here.sealer.seal(_TOTP_NEW, secret.encode())
        connection.execute(update(tables.users).where(tables.users.c.id == call.who.id).values(totp_new=sealed))
        audit.note(connection, call, "user.totp.begin", call.who.id)
    return secret


def confirm_totp(connection: Connection, sealer: Sealer, call: Call, code: str) -> None:
    """Raises ``Usage`` where the code is none of the new secret. Other sessions end."""
    user = require_person(call)
    its = tables.users.c
    sealed = connection.execute(select(its.totp_new).where(its.id == user).with_for_update()).scalar()
    if sealed is None:
        raise errors.Usage("No second factor is being set up: begin with POST /v1/me/totp.")
    secret = sealer.open(_TOTP_NEW, sealed).decode()
    step = passwords.totp_step(secret, code, call.now, 0)
    if step is None:
        raise errors.Usage("The code is not right. Is the clock of the device that shows it?")
    values = {"totp": sealer.seal(_TOTP, secret.encode()), "totp_new": None, "totp_step": step}
    connection.execute(update(tables.users).where(its.id == user).values(values))
    users.end_sessions(connection, user, but=call.who.session)
    audit.note(connection, call, "user.totp.set", user)


def remove_totp(here: Site, call: Call, password: str) -> None:
    require_password(here, call, password)
    with here.database.write() as connection:
        change = update(tables.users).where(tables.users.c.id == call.who.id)
        connection.execute(change.values(totp=None, totp_new=None))
        audit.note(connection, call, "user.totp.remove", call.who.id)
