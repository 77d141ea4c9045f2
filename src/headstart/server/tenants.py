"""Tenants: made and bounded by the site, otherwise their own masters."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from headstart import errors
from headstart.server import audit, caution, entry, ids, tables
from headstart.server.call import Call
from headstart.server.caution import Caution
from headstart.server.roles import Right, Role

BAD_NAME = "A name takes letters, digits, '.', '_' and '-', 64 at most, and begins with one of the first two."


def create(
    connection: Connection, call: Call, name: str, quota_bytes: int | None = None, quota_vms: int | None = None
) -> str:
    """Raises ``TargetRefused`` where there is one of that name."""
    call.who.require(Right.SITE)
    if not ids.is_name(name):
        raise errors.Usage(BAD_NAME)
    if connection.execute(select(tables.tenants.c.id).where(tables.tenants.c.name == name)).first():
        raise errors.TargetRefused(f"There is a tenant {name!r} already.")
    tenant = ids.new()
    connection.execute(
        insert(tables.tenants).values(
            id=tenant,
            name=name,
            created=call.now,
            quota_bytes=quota_bytes,
            quota_vms=quota_vms,
            second_person=False,
            delay_seconds=0.0,
        )
    )
    audit.note(connection, call, "tenant.create", tenant, name=name)
    return tenant


def get(connection: Connection, call: Call, tenant: str) -> dict[str, Any]:
    """Raises ``NotFound``, also for another tenant than one's own."""
    row = connection.execute(select(tables.tenants).where(tables.tenants.c.id == tenant)).mappings().first()
    if row is None or call.who.tenant not in (None, tenant):
        raise errors.NotFound(f"There is no tenant {tenant!r} here.")
    return dict(row)


def bound(connection: Connection, call: Call, tenant: str, quota_bytes: int | None, quota_vms: int | None) -> None:
    """None: no limit."""
    call.who.require(Right.SITE)
    get(connection, call, tenant)
    change = update(tables.tenants).where(tables.tenants.c.id == tenant)
    connection.execute(change.values(quota_bytes=quota_bytes, quota_vms=quota_vms))
    audit.note_for(connection, call, tenant, "tenant.bound", tenant, quota_bytes=quota_bytes, quota_vms=quota_vms)


def require_can_wait(connection: Connection, call: Call, wanted: Caution) -> None:
    """Raises ``Usage``: whoever is alone would wait for ever."""
    tenant = call.who.of(Right.CONFIGURE)
    if not 0 <= wanted.delay <= caution.LONGEST_DELAY:
        raise errors.Usage(f"A delay has {caution.LONGEST_DELAY / 86400:.0f} days at most.")
    its = tables.users.c
    admins = select(func.count()).where(its.tenant == tenant, its.role == Role.ADMIN, entry.is_open())
    if wanted.second_person and connection.execute(admins).scalar_one() < 2:
        raise errors.Usage("Make a second admin first: with one alone, nothing could be approved.")


def set_caution(connection: Connection, call: Call, wanted: Caution) -> None:
    """Whether destructive acts wait. To make that weaker is such an act itself. Raises ``Usage``, ``Denied``."""
    require_can_wait(connection, call, wanted)
    tenant = call.who.of(Right.CONFIGURE)
    if wanted.is_weaker_than(caution.of(connection, tenant)):
        caution.require_approved(connection, call)
    values = {"second_person": wanted.second_person, "delay_seconds": wanted.delay}
    connection.execute(update(tables.tenants).where(tables.tenants.c.id == tenant).values(values))
    audit.note(connection, call, "tenant.caution", tenant, **values)


def remove(connection: Connection, call: Call, tenant: str) -> None:
    """Only one without repositories: what they hold is not ours to throw away. Raises ``Busy``."""
    call.who.require(Right.SITE)
    get(connection, call, tenant)
    if connection.execute(select(tables.repositories.c.id).where(tables.repositories.c.tenant == tenant)).first():
        raise errors.Busy("The tenant has repositories. Its admin removes them first.")
    connection.execute(delete(tables.tenants).where(tables.tenants.c.id == tenant))
    audit.note(connection, call, "tenant.remove", tenant)


def overview(connection: Connection, call: Call) -> list[dict[str, Any]]:
    """Sizes and health of all: of one's own for who is of a tenant."""
    call.who.require(Right.SIZES)
    its, repositories, vms = tables.tenants.c, tables.repositories.c, tables.vms.c
    used = select(func.coalesce(func.sum(repositories.used_bytes), 0)).where(repositories.tenant == its.id)
    count = select(func.count()).select_from(tables.vms).where(vms.tenant == its.id)
    newest = select(func.min(vms.last_success)).where(vms.tenant == its.id)
    query = select(
        tables.tenants,
        used.scalar_subquery().label("used_bytes"),
        count.scalar_subquery().label("vms"),
        newest.scalar_subquery().label("oldest_success"),
    ).order_by(its.name)
    if call.who.tenant is not None:
        query = query.where(its.id == call.who.tenant)
    return [dict(row) for row in connection.execute(query).mappings()]
