"""VMs as their hosts tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from headstart import errors
from headstart.server import audit, caution, ids, tables
from headstart.server.call import Call
from headstart.server.roles import Right

_PAGE = 1000


def seen(connection: Connection, call: Call, views: Mapping[str, Mapping[str, Any] | None]) -> None:
    """What a host says of all its VMs now, by name; None: it has no policy. Those that it does not name any longer stay
    as they were. Raises ``NoSpace`` where the tenant's quota of VMs is used up: what is known goes on."""
    call.who.require(Right.REPORT)
    its = tables.vms.c
    known = connection.execute(select(its.name).where(its.host == call.who.host)).scalars().all()
    for name in views.keys() & set(known):
        view = views[name]
        values = {"seen": call.now, "view": None if view is None else dict(view)}
        connection.execute(update(tables.vms).where(its.host == call.who.host, its.name == name).values(values))
    new = sorted(views.keys() - set(known))
    if not new:
        return
    _require_room(connection, call, len(new))
    for name in new:
        view = views[name]
        values = {"seen": call.now, "view": None if view is None else dict(view)}
        fixed = {"id": ids.new(), "tenant": call.who.tenant, "host": call.who.host, "name": name[:255]}
        connection.execute(insert(tables.vms).values(**fixed, **values, created=call.now))


def _require_room(connection: Connection, call: Call, more: int) -> None:
    quota = connection.execute(
        select(tables.tenants.c.quota_vms).where(tables.tenants.c.id == call.who.tenant)
    ).scalar()
    if quota is None:
        return
    count = connection.execute(
        select(func.count()).select_from(tables.vms).where(tables.vms.c.tenant == call.who.tenant)
    ).scalar_one()
    if count + more > quota:
        raise errors.NoSpace(
            f"The quota of {quota} VMs is used up. Remove VMs that are gone, or ask the site for more."
        )


def listed(connection: Connection, call: Call, after: str = "", limit: int = _PAGE) -> list[dict[str, Any]]:
    """By name and id; ``after`` is the id of the last one of the page before."""
    tenant = call.who.of(Right.SEE)
    its = tables.vms.c
    query = (
        select(tables.vms, tables.hosts.c.name.label("host_name"))
        .join_from(tables.vms, tables.hosts, its.host == tables.hosts.c.id)
        .where(its.tenant == tenant)
        .order_by(its.name, its.id)
        .limit(min(limit, _PAGE))
    )
    if after:
        last = get(connection, call, after)
        query = query.where((its.name > last["name"]) | ((its.name == last["name"]) & (its.id > after)))
    return [dict(row) for row in connection.execute(query).mappings()]


def get(connection: Connection, call: Call, vm: str) -> dict[str, Any]:
    """Raises ``NotFound``."""
    tenant = call.who.of(Right.SEE)
    its = tables.vms.c
    query = (
        select(tables.vms, tables.hosts.c.name.label("host_name"))
        .join_from(tables.vms, tables.hosts, its.host == tables.hosts.c.id)
        .where(its.id == vm, its.tenant == tenant)
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise errors.NotFound(f"There is no VM {vm!r} here.")
    return dict(row)


def remove(connection: Connection, call: Call, vm: str) -> None:
    """From the lists: its snapshots stay, and a host that still has it names it again. Raises ``NotFound``."""
    tenant = call.who.of(Right.DELETE)
    found = get(connection, call, vm)
    caution.require_approved(connection, call)
    connection.execute(delete(tables.vms).where(tables.vms.c.id == vm, tables.vms.c.tenant == tenant))
    audit.note(connection, call, "vm.remove", vm, name=found["name"])
