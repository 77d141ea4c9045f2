"""Policies of a tenant, and which VMs have them: hosts fetch them as one document, and go by it until the next."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import fields
from typing import Any

import tomli_w
from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.host import keys, validation
from headstart.host import tables as toml
from headstart.host.policy import Retention
from headstart.server import audit, caution, ids, tables
from headstart.server.call import Call
from headstart.server.roles import Right

LONGEST = 64 * 1024
#: Commands that would run as root on hosts: who reaches the server must not reach those.
HOOKS = "hooks"


def check(name: str, text: str) -> toml.PolicyTable:
    """What stands in ``[policy.NAME]``. Raises ``Usage`` with every mistake in it."""
    if not toml.NAME.fullmatch(name) or name == keys.NONE:
        raise errors.Usage(f"{name!r} cannot be the name of a policy.")
    if len(text) > LONGEST:
        raise errors.Usage("The policy is too long.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise errors.Usage(f"This is not TOML: {error}.") from error
    if HOOKS in table:
        raise errors.Usage(
            "A policy of the server's has no hooks: they run as root on hosts, and stand in their own files."
        )
    found, wrong = validation.validate(toml.PolicyTable, table)
    if found is None or wrong:
        told = "; ".join(f"{'.'.join(map(str, each.path))}: {each.message}" for each in wrong)
        raise errors.Usage(f"The policy has mistakes: {told}.")
    return found


def keeps_less(new: Retention, old: Retention) -> bool:
    """Whether anything that ``old`` keeps may go. Without any rule, all is kept."""
    if not new.rules:
        return False
    return not old.rules or any(getattr(new, each.name) < getattr(old, each.name) for each in fields(Retention))


def shortens(connection: Connection, call: Call, name: str, text: str) -> bool:
    """Whether snapshots may go that the policy as it is keeps. Raises ``Usage``."""
    tenant = call.who.of(Right.CONFIGURE)
    new, old = check(name, text).retention.value(), _retention(connection, tenant, name)
    return old is not None and keeps_less(new, old)


def assignment_shortens(connection: Connection, call: Call, pattern: str, name: str | None) -> bool:
    """Whether the policy keeps less than the one that ``pattern`` has now; where it has none, than any there is: VMs
    may have had that one by another pattern, or until a moment ago. Without a policy nothing is forgotten. Raises
    ``NotFound``."""
    tenant = call.who.of(Right.CONFIGURE)
    if name is None:
        return False
    new = _retention(connection, tenant, name)
    if new is None:
        raise errors.NotFound(f"There is no policy {name!r} here.")
    now = assigned(connection, tenant).get(pattern)
    return any(keeps_less(new, old) for each, old in _retentions(connection, tenant) if now in (None, each))


def unassignment_shortens(connection: Connection, call: Call, pattern: str) -> bool:
    """Whether a policy of another pattern, which may hold then, keeps less."""
    tenant = call.who.of(Right.CONFIGURE)
    known = assigned(connection, tenant)
    name = known.pop(pattern, None)
    old = None if name is None else _retention(connection, tenant, name)
    others = set(known.values())
    found = [retention for each, retention in _retentions(connection, tenant) if each in others]
    return old is not None and any(keeps_less(each, old) for each in found)


def _retentions(connection: Connection, tenant: str) -> list[tuple[str, Retention]]:
    its = tables.policies.c
    rows = connection.execute(select(its.name, its.text).where(its.tenant == tenant)).all()
    return [(name, check(name, text).retention.value()) for name, text in rows]


def _retention(connection: Connection, tenant: str, name: str) -> Retention | None:
    return dict(_retentions(connection, tenant)).get(name)


def put(connection: Connection, call: Call, name: str, text: str) -> str:
    """Make it, or change it; its id. Raises ``Usage``."""
    tenant = call.who.of(Right.CONFIGURE)
    if shortens(connection, call, name, text):
        caution.require_approved(connection, call)
    its = tables.policies.c
    known = connection.execute(select(its.id).where(its.tenant == tenant, its.name == name)).scalar()
    policy = known or ids.new()
    values = {"text": text, "changed": call.now}
    if known is None:
        connection.execute(insert(tables.policies).values(id=policy, tenant=tenant, name=name, **values))
    else:
        connection.execute(update(tables.policies).where(its.id == policy).values(values))
    audit.note(connection, call, "policy.put", policy, name=name, text=text)
    return str(policy)


def listed(connection: Connection, call: Call) -> list[dict[str, Any]]:
    tenant = call.who.of(Right.SEE)
    its = tables.policies.c
    query = select(tables.policies).where(its.tenant == tenant).order_by(its.name)
    return [dict(row) for row in connection.execute(query).mappings()]


def remove(connection: Connection, call: Call, name: str) -> None:
    """Raises ``NotFound``; ``Busy`` while VMs have it."""
    policy = require_removable(connection, call, name)
    # What it keeps is what later ones are compared with.
    caution.require_approved(connection, call)
    its = tables.policies.c
    connection.execute(delete(tables.policies).where(its.id == policy))
    audit.note(connection, call, "policy.remove", policy, name=name)


def require_removable(connection: Connection, call: Call, name: str) -> str:
    """Its id. Raises as ``remove``."""
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.policies.c
    policy = connection.execute(select(its.id).where(its.tenant == tenant, its.name == name)).scalar()
    if policy is None:
        raise errors.NotFound(f"There is no policy {name!r} here.")
    if connection.execute(select(tables.assignments).where(tables.assignments.c.policy == policy)).first():
        raise errors.Busy(f"VMs have the policy {name!r}. Assign another one first.")
    return str(policy)


def assign(connection: Connection, call: Call, pattern: str, name: str | None) -> None:
    """``pattern``: a VM's name, or a pattern of names; empty: what nothing names. None: not backed up."""
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.policies.c
    policy = None
    if name is not None:
        policy = connection.execute(select(its.id).where(its.tenant == tenant, its.name == name)).scalar()
        if policy is None:
            raise errors.NotFound(f"There is no policy {name!r} here.")
    if assignment_shortens(connection, call, pattern, name):
        caution.require_approved(connection, call)
    _drop_assignment(connection, tenant, pattern)
    connection.execute(insert(tables.assignments).values(tenant=tenant, pattern=pattern, policy=policy))
    audit.note(connection, call, "policy.assign", pattern, policy=name)


def unassign(connection: Connection, call: Call, pattern: str) -> None:
    tenant = call.who.of(Right.CONFIGURE)
    if unassignment_shortens(connection, call, pattern):
        caution.require_approved(connection, call)
    _drop_assignment(connection, tenant, pattern)
    audit.note(connection, call, "policy.unassign", pattern)


def _drop_assignment(connection: Connection, tenant: str, pattern: str) -> None:
    its = tables.assignments.c
    connection.execute(delete(tables.assignments).where(its.tenant == tenant, its.pattern == pattern))


def assigned(connection: Connection, tenant: str) -> dict[str, str | None]:
    """By pattern, the name of the policy."""
    its = tables.assignments.c
    query = (
        select(its.pattern, tables.policies.c.name)
        .join_from(tables.assignments, tables.policies, its.policy == tables.policies.c.id, isouter=True)
        .where(its.tenant == tenant)
        .order_by(its.pattern)
    )
    return {row.pattern: row.name for row in connection.execute(query)}


def document(connection: Connection, tenant: str) -> str:
    """All of them, as TOML that a host has beside its own configuration (docs/policies.md)."""
    its = tables.policies.c
    query = select(its.name, its.text).where(its.tenant == tenant).order_by(its.name)
    found: dict[str, Any] = {"policy": {name: tomllib.loads(text) for name, text in connection.execute(query).all()}}
    for pattern, name in assigned(connection, tenant).items():
        place = found.setdefault("vm", {}).setdefault(pattern, {}) if pattern else found.setdefault("default", {})
        place["policy"] = name or keys.NONE
    return tomli_w.dumps(found)


def version_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
