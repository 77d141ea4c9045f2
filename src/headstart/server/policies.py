"""Policies of a tenant, and which VMs have them: hosts fetch them as one document, and go by it until the next."""

from __future__ import annotations

import hashlib
import tomllib
from datetime import UTC, datetime
from typing import Any

import tomli_w
from sqlalchemy import Connection, delete, insert, select, update

from headstart import errors
from headstart.host import config, contradictions, keys, validation
from headstart.host import tables as toml
from headstart.host.policy import Policy
from headstart.server import audit, caution, ids, keeping, tables
from headstart.server.call import Call
from headstart.server.roles import Right

LONGEST = 64 * 1024
#: Commands that would run as root on hosts: who reaches the server must not reach those.
HOOKS = "hooks"


def check(name: str, text: str, now: float, *, written: bool = True) -> toml.PolicyTable:
    """What stands in ``[policy.NAME]``. Raises ``Usage`` with every mistake in it: hosts would refuse all policies for
    one. ``written`` as for ``contradictions.find``."""
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
    mistakes = [(each.path, each.message) for each in wrong]
    moment = datetime.fromtimestamp(now, UTC)
    mistakes += contradictions.find_beside(wrong, found, table, moment, written=written)
    if found is None or mistakes:
        told = "; ".join(f"{'.'.join(map(str, path))}: {message}" for path, message in mistakes)
        raise errors.Usage(f"The policy has mistakes: {told}.")
    return found


def shortens(connection: Connection, call: Call, name: str, text: str) -> bool:
    """Whether snapshots may go that the policy as it is keeps; of a new one nobody has, whether it becomes the default
    by its name. Raises ``Usage``."""
    tenant = call.who.of(Right.CONFIGURE)
    # What waited for its approval was right when it was written.
    new = check(name, text, call.now, written=not call.approved).value(name)
    _lock(connection, tenant)
    if _id(connection, tenant, name) is None and (name != config.DEFAULT_POLICY or "" in assigned(connection, tenant)):
        return False
    return keeping.keeps_less(new, readable(connection, tenant).get(name))


def assignment_shortens(connection: Connection, call: Call, pattern: str, name: str | None) -> bool:
    """Whether anything of a VM may go that is kept as things are. Raises ``NotFound``."""
    tenant = call.who.of(Right.CONFIGURE)
    _lock(connection, tenant)
    if name is not None and _id(connection, tenant, name) is None:
        raise errors.NotFound(f"There is no policy {name!r} here.")
    return keeping.loses_assigned(readable(connection, tenant), assigned(connection, tenant), pattern, name)


def unassignment_shortens(connection: Connection, call: Call, pattern: str) -> bool:
    """Whether what holds then keeps less."""
    tenant = call.who.of(Right.CONFIGURE)
    _lock(connection, tenant)
    return keeping.loses_unassigned(readable(connection, tenant), assigned(connection, tenant), pattern)


def _lock(connection: Connection, tenant: str) -> None:
    """Until the transaction ends: of two changes each may lose nothing, and both together something."""
    its = tables.tenants.c
    connection.execute(select(its.id).where(its.id == tenant).with_for_update(key_share=True))


def _id(connection: Connection, tenant: str, name: str) -> str | None:
    its = tables.policies.c
    return connection.execute(select(its.id).where(its.tenant == tenant, its.name == name)).scalar()


def readable(connection: Connection, tenant: str) -> dict[str, Policy]:
    """Those that this version can read."""
    its = tables.policies.c
    known: dict[str, Policy] = {}
    for name, text in connection.execute(select(its.name, its.text).where(its.tenant == tenant)).all():
        table, wrong = validation.validate(toml.PolicyTable, tomllib.loads(text))
        if table is not None and not wrong:
            known[name] = table.value(name)
    return known


def put(connection: Connection, call: Call, name: str, text: str) -> str:
    """Make it, or change it; its id. Raises ``Usage``."""
    tenant = call.who.of(Right.CONFIGURE)
    if shortens(connection, call, name, text):
        caution.require_approved(connection, call)
    known = _id(connection, tenant, name)
    policy = known or ids.new()
    values = {"text": text, "changed": call.now}
    if known is None:
        connection.execute(insert(tables.policies).values(id=policy, tenant=tenant, name=name, **values))
    else:
        connection.execute(update(tables.policies).where(tables.policies.c.id == policy).values(values))
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
    # What waits may name it: nobody puts another one in its place meanwhile.
    caution.require_approved(connection, call)
    its = tables.policies.c
    connection.execute(delete(tables.policies).where(its.id == policy))
    audit.note(connection, call, "policy.remove", policy, name=name)


def require_removable(connection: Connection, call: Call, name: str) -> str:
    """Its id. Raises as ``remove``."""
    tenant = call.who.of(Right.CONFIGURE)
    policy = _id(connection, tenant, name)
    if policy is None:
        raise errors.NotFound(f"There is no policy {name!r} here.")
    if connection.execute(select(tables.assignments).where(tables.assignments.c.policy == policy)).first():
        raise errors.Busy(f"VMs have the policy {name!r}. Assign another one first.")
    return str(policy)


def assign(connection: Connection, call: Call, pattern: str, name: str | None) -> None:
    """``pattern``: a VM's name, or a pattern of names; empty: what nothing names. None: not backed up.
    Raises ``NotFound``."""
    tenant = call.who.of(Right.CONFIGURE)
    if assignment_shortens(connection, call, pattern, name):
        caution.require_approved(connection, call)
    policy = None if name is None else _id(connection, tenant, name)
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
