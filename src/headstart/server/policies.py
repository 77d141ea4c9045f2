"""Policies of a tenant, and which VMs have them: hosts fetch them as one document, and go by it until the next."""

from __future__ import annotations

import hashlib
import tomllib
from typing import Any

import tomli_w
from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.host import tables as toml
from headstart.host import validation
from headstart.server import audit, ids, tables
from headstart.server.call import Call
from headstart.server.roles import Right

LONGEST = 64 * 1024
#: Commands that would run as root on hosts: who reaches the server must not reach those.
HOOKS = "hooks"


def check(name: str, text: str) -> None:
    """Raises ``Usage`` with every mistake in what stands in ``[policy.NAME]``."""
    if not toml.NAME.fullmatch(name) or name == toml.NONE:
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


def put(connection: Connection, call: Call, name: str, text: str) -> str:
    """Make it, or change it; its id. Raises ``Usage``."""
    tenant = call.who.of(Right.CONFIGURE)
    check(name, text)
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
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.policies.c
    policy = connection.execute(select(its.id).where(its.tenant == tenant, its.name == name)).scalar()
    if policy is None:
        raise errors.NotFound(f"There is no policy {name!r} here.")
    if connection.execute(select(tables.assignments).where(tables.assignments.c.policy == policy)).first():
        raise errors.Busy(f"VMs have the policy {name!r}. Assign another one first.")
    connection.execute(delete(tables.policies).where(its.id == policy))
    audit.note(connection, call, "policy.remove", policy, name=name)


def assign(connection: Connection, call: Call, pattern: str, name: str | None) -> None:
    """``pattern``: a VM's name, or a pattern of names; empty: what nothing names. None: not backed up."""
    tenant = call.who.of(Right.CONFIGURE)
    its = tables.policies.c
    policy = None
    if name is not None:
        policy = connection.execute(select(its.id).where(its.tenant == tenant, its.name == name)).scalar()
        if policy is None:
            raise errors.NotFound(f"There is no policy {name!r} here.")
    unassign(connection, call, pattern)
    connection.execute(insert(tables.assignments).values(tenant=tenant, pattern=pattern, policy=policy))
    audit.note(connection, call, "policy.assign", pattern, policy=name)


def unassign(connection: Connection, call: Call, pattern: str) -> None:
    tenant = call.who.of(Right.CONFIGURE)
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
        place["policy"] = name or toml.NONE
    return tomli_w.dumps(found)


def version_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
