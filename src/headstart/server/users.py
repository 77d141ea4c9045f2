"""People: who they are, and what they may. How they log in is in ``logins``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.server import audit, caution, entry, ids, passwords, tables
from headstart.server.call import Call
from headstart.server.roles import GIVEN, Right, Role
from headstart.server.tenants import BAD_NAME


def create(connection: Connection, call: Call, name: str, password: str | None, role: Role, tenant: str | None) -> str:
    """Of one's own tenant by its admin; of the site, and the first admin of a tenant, by the site's. Without a password
    somebody is let in by ``accounts``."""
    require_may_give(connection, call, role, tenant)
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
            password=None if password is None else passwords.hashed(password),
            disabled=False,
            created=call.now,
        )
    )
    if tenant is not None and call.who.tenant is None:
        audit.note_for(connection, call, tenant, "user.create", user, name=name, role=role, of=tenant)
    else:
        audit.note(connection, call, "user.create", user, name=name, role=role, of=tenant)
    return user


def require_may_give(connection: Connection, call: Call, role: Role, tenant: str | None) -> None:
    """Raises ``Denied``, ``NotFound``, ``Usage``."""
    if call.who.tenant is None:
        call.who.require(Right.SITE)
        if role is not (Role.SITE if tenant is None else Role.ADMIN):
            raise errors.Usage("The site makes admins: of itself, and the first ones of tenants.")
        if tenant is not None:
            _require_without_admin(connection, tenant)
        return
    own = call.who.of(Right.CONFIGURE)
    if tenant not in (None, own):
        raise errors.NotFound(f"There is no tenant {tenant!r} here.")
    if tenant is None or role not in GIVEN:
        raise errors.Denied("An admin gives roles of the own tenant: viewer, operator, admin.")
    if role is Role.ADMIN and caution.of(connection, own):
        # Whoever could make an admin would be a second person.
        raise errors.Denied(
            "The tenant wants a second person, or a delay: people begin as viewer or operator, and are made admins"
            " after."
        )


def _require_without_admin(connection: Connection, tenant: str) -> None:
    """The site makes a tenant's first admin, and no other: it would be a way into what is the tenant's own."""
    if connection.execute(select(tables.tenants.c.id).where(tables.tenants.c.id == tenant)).first() is None:
        raise errors.NotFound(f"There is no tenant {tenant!r} here.")
    if admins(connection, tenant):
        raise errors.Denied(
            "The tenant has an admin, who makes the others. One who cannot log in any longer gets a new password on the"
            " server's own machine: headstart server admin NAME."
        )


def admins(connection: Connection, tenant: str | None) -> list[str]:
    """Ids of those that can log in, of a tenant or of the site. They stay so until the transaction ends."""
    its = tables.users.c
    role = Role.SITE if tenant is None else Role.ADMIN
    query = select(its.id).where(its.tenant == tenant, its.role == role, entry.is_open()).order_by(its.id)
    return list(connection.execute(query.with_for_update()).scalars())


def listed(connection: Connection, call: Call) -> list[dict[str, Any]]:
    """Those of the own tenant, or of the site."""
    tenant = _seen_tenant(call)
    its = tables.users.c
    columns = (
        *(its.id, its.name, its.role, its.disabled, its.created, its.seen, its.totp.is_not(None).label("totp")),
        its.password.is_not(None).label("password"),
        entry.is_linked().label("linked"),
    )
    query = select(*columns).where(its.tenant == tenant).order_by(its.name)
    return [dict(row) for row in connection.execute(query).mappings()]


def _seen_tenant(call: Call) -> str | None:
    if call.who.tenant is not None:
        return call.who.of(Right.SEE)
    call.who.require(Right.SITE)
    return None


def get(connection: Connection, call: Call, user: str) -> dict[str, Any]:
    """Somebody of the own tenant, or of the site, for who may change people. Raises ``NotFound``, ``Denied``."""
    if call.who.tenant is not None:
        call.who.of(Right.CONFIGURE)
    else:
        call.who.require(Right.SITE)
    its = tables.users.c
    columns = (its.id, its.name, its.role, its.disabled, its.tenant)
    query = select(*columns).where(its.id == user, its.tenant == call.who.tenant)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise errors.NotFound(f"There is no user {user!r} here.")
    return dict(row)


def remove(connection: Connection, call: Call, user: str) -> None:
    """Raises ``NotFound``; ``Usage`` for oneself: somebody has to be left."""
    found = get(connection, call, user)
    if user == call.who.person:
        raise errors.Usage("Nobody removes himself. Another admin does.")
    _require_others(connection, call, user)
    connection.execute(delete(tables.users).where(tables.users.c.id == user))
    audit.note(connection, call, "user.remove", user, name=found["name"])


def set_role(connection: Connection, call: Call, user: str, role: Role) -> None:
    """Raises ``Usage`` for the last admin."""
    found = get(connection, call, user)
    if role not in (GIVEN if call.who.tenant is not None else (Role.SITE,)):
        raise errors.Usage("People of a tenant are viewer, operator or admin; those of the site are site.")
    if role is Role.ADMIN and found["role"] != Role.ADMIN:
        caution.require_approved(connection, call)
    if role != found["role"]:
        _require_others(connection, call, user)
    connection.execute(update(tables.users).where(tables.users.c.id == user).values(role=role))
    audit.note(connection, call, "user.role", user, name=found["name"], role=role, before=found["role"])


def set_disabled(connection: Connection, call: Call, user: str, disabled: bool) -> None:
    """At once: sessions end. Raises ``Usage`` for the last admin."""
    found = get(connection, call, user)
    if disabled:
        _require_others(connection, call, user)
        end_sessions(connection, user)
    elif found["disabled"] and found["role"] == Role.ADMIN:
        caution.require_approved(connection, call)
    connection.execute(update(tables.users).where(tables.users.c.id == user).values(disabled=disabled))
    audit.note(connection, call, "user.disable" if disabled else "user.enable", user, name=found["name"])


def reset(connection: Connection, call: Call, user: str, password_hash: str | None) -> None:
    """Of somebody who lost a password, a second factor or an account: none but that password, if any, and no session.
    Raises ``Usage`` where there would be no way in."""
    found = get(connection, call, user)
    if user == call.who.person:
        raise errors.Usage("One's own password and second factor are changed below /v1/me. Another admin resets them.")
    if found["role"] == Role.ADMIN:
        caution.require_approved(connection, call)
    its = tables.users.c
    if password_hash is None and connection.execute(select(its.password).where(its.id == user)).scalar() is None:
        raise errors.Usage("There is no password yet: a reset gives one.")
    values: dict[str, Any] = {"totp": None, "totp_new": None}
    if password_hash is not None:
        values["password"] = password_hash
    connection.execute(update(tables.users).where(its.id == user).values(values))
    entry.forget_accounts(connection, user)
    end_sessions(connection, user)
    audit.note(connection, call, "user.reset", user, name=found["name"], password=password_hash is not None)


def log_off(connection: Connection, call: Call, user: str) -> None:
    """End all sessions of somebody's."""
    found = get(connection, call, user)
    end_sessions(connection, user)
    audit.note(connection, call, "user.log_off", user, name=found["name"])


def end_sessions(connection: Connection, user: str, but: str = "") -> None:
    its = tables.sessions.c
    connection.execute(delete(tables.sessions).where(its.user == user, its.hash != but))


def _require_others(connection: Connection, call: Call, user: str) -> None:
    """Who is not an admin any longer must not have been the last one; nor, where a second person is wanted, the last
    but one."""
    left = admins(connection, call.who.tenant)
    if user not in left:
        return
    needed = 2 if caution.of(connection, call.who.tenant).second_person else 1
    if len(left) - 1 < needed:
        many = "two admins, since it wants a second person" if needed == 2 else "an admin"
        raise errors.Usage(f"Somebody has to be left: {'the tenant' if call.who.tenant else 'the site'} needs {many}.")
