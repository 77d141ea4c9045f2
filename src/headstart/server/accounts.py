"""Accounts at the provider: whose they are here, and logging in with one.

An account is somebody's here when he linked it, logged in and with his password once more; or when he came with the
secret of an invitation, and the provider has verified the e-mail that it is for. Nobody is made, and no right is given,
by what a provider says.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, exc, insert, select, update

from headstart import errors
from headstart.server import audit, credentials, logins, tables, users
from headstart.server.call import Call
from headstart.server.logins import Session, Visit
from headstart.server.principal import NobodyKnown
from headstart.server.provider import Account
from headstart.server.roles import Role
from headstart.server.site import Site

INVITED_SECONDS = 7 * 86400.0
#: Alike for every reason.
_UNKNOWN = (
    "Nobody here is to be let in with that account. Link it under Settings, once you have logged in with your password,"
    " or ask an admin for an invitation to the e-mail of the account."
)


def log_in(here: Site, account: Account, visit: Visit, invitation: str = "") -> Session:
    """Raises ``NobodyKnown``. No second factor is asked for: that is the provider's part."""
    now = here.clock()
    with here.database.write() as connection:
        row = _accepted(connection, account, visit, invitation, now) if invitation else _of(connection, account)
        if row is not None and not row["disabled"]:
            connection.execute(update(tables.users).where(tables.users.c.id == row["id"]).values(seen=now))
            return logins.begin(connection, row, visit, now, by=account.issuer)
        logins.refuse(connection, row, visit, now, by=account.issuer, account=account.subject)
    raise NobodyKnown(_UNKNOWN)


def _of(connection: Connection, account: Account) -> Any:
    its = tables.identities.c
    query = select(tables.users).join_from(tables.identities, tables.users, its.user == tables.users.c.id)
    return (
        connection.execute(query.where(its.issuer == account.issuer, its.subject == account.subject)).mappings().first()
    )


def _accepted(connection: Connection, account: Account, visit: Visit, secret: str, now: float) -> Any:
    its = tables.invitations.c
    query = (
        select(tables.users, its.email)
        .join_from(tables.invitations, tables.users, its.user == tables.users.c.id)
        .where(its.hash == credentials.hashed(secret), its.expires > now)
    )
    row = connection.execute(query).mappings().first()
    if row is None or row["disabled"] or not _same(account.email, row["email"]):
        return None
    if _of(connection, account) is not None:
        return None
    # Of two at once, one has it.
    if not connection.execute(delete(tables.invitations).where(its.hash == credentials.hashed(secret))).rowcount:
        return None
    _put(connection, row["id"], account, now)
    audit.note(connection, logins.call_of(row, visit, now), "user.link", row["id"], issuer=account.issuer)
    return row


def _same(email: str, invited: str) -> bool:
    # Only of ASCII: other letters have capitals that are somebody else's address.
    return bool(email) and (email == invited or ((email + invited).isascii() and email.lower() == invited.lower()))


def _put(connection: Connection, user: str, account: Account, now: float) -> None:
    values = {"issuer": account.issuer, "subject": account.subject, "user": user, "created": now}
    connection.execute(insert(tables.identities).values(values))


def create(here: Site, connection: Connection, call: Call, name: str, email: str, role: Role) -> tuple[str, str]:
    """Somebody of one's own tenant, or of the site, without a password. Who it is, and a link, told once: whoever comes
    with it and with an account of that e-mail is let in. Raises ``Usage``, and as ``users.create``."""
    user = users.create(connection, call, name, None, role, call.who.tenant)
    if here.settings.oidc is None:
        raise errors.Usage("Invitations need a provider of OpenID Connect, and this server has none: give a password.")
    secret = _invite(connection, call, user, email)
    audit.note(connection, call, "user.invite", user, name=name, email=email.strip())
    return user, f"{here.settings.oidc.url}/login?invitation={secret}"


def _invite(connection: Connection, call: Call, user: str, email: str) -> str:
    wanted = email.strip()
    if not 3 <= len(wanted) <= 255 or "@" not in wanted[1:-1] or not wanted.isprintable():
        raise errors.Usage("That is no e-mail address.")
    secret = credentials.new_secret()
    values = {"hash": credentials.hashed(secret), "user": user, "email": wanted, "expires": call.now + INVITED_SECONDS}
    connection.execute(insert(tables.invitations).values(values))
    return secret


def link(connection: Connection, call: Call, account: Account) -> None:
    """With oneself; instead of one that is there. Raises ``TargetRefused`` for one that is somebody's."""
    user = logins.require_person(call)
    found = _of(connection, account)
    if found is not None and found["id"] != user:
        raise errors.TargetRefused("That account is linked with somebody else. Log out at the provider, and try again.")
    _remove(connection, user)
    try:
        with connection.begin_nested():
            _put(connection, user, account, call.now)
    except exc.IntegrityError as error:
        raise errors.TargetRefused("That account was linked with somebody else just now.") from error
    audit.note(connection, call, "user.link", user, issuer=account.issuer)


def unlink(here: Site, call: Call, password: str) -> None:
    """Other sessions end. Who has no password has no other way in, and keeps this one. Raises ``Denied``,
    ``TooOften``."""
    logins.require_password(here, call, password)
    with here.database.write() as connection:
        _remove(connection, call.who.id)
        users.end_sessions(connection, call.who.id, but=call.who.session)
        audit.note(connection, call, "user.unlink", call.who.id)


def _remove(connection: Connection, user: str) -> None:
    connection.execute(delete(tables.identities).where(tables.identities.c.user == user))
