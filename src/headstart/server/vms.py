"""VMs as their hosts tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from headstart import errors
from headstart.host.account import number
from headstart.server import audit, caution, ids, tables
from headstart.server.call import Call
from headstart.server.roles import Right

_PAGE = 1000
#: A backup that is due begins within so many seconds: others may come first.
LATE_SECONDS = 1800.0
#: ``seen`` of a VM of which nothing changes is at most so old, while its host tells of it.
SEEN_SECONDS = 300.0
#: So a host that was heard of so long after a VM of its does not tell of that any longer.
UNTOLD_SECONDS = 900.0
#: What makes a backup that is late: it is being made. For so long, and not because nothing else was heard since.
BACKS_UP, EXCUSE_SECONDS = ("backup", "publish"), 12 * 3600.0


def seen(connection: Connection, call: Call, views: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str]:
    """What a host says of all its VMs now, by name; None: it has no policy. Those that it does not name any longer stay
    as they were. Returns those that are not taken in, as the tenant's quota of VMs is used up, and why; what is known
    goes on."""
    call.who.require(Right.REPORT)
    its = tables.vms.c
    query = select(its.name, its.seen, its.view).where(its.host == call.who.host)
    known = {row.name: row for row in connection.execute(query)}
    # Most views are as they were: 16 MB a day of each VM if they were written at each pulse.
    changed = [
        _row(call, name, views[name])
        for name in sorted(views.keys() & known)
        if views[name] != known[name].view or known[name].seen < call.now - SEEN_SECONDS
    ]
    if changed:
        change = update(tables.vms).where(its.host == call.who.host, its.name == bindparam("its_name"))
        values: dict[str, Any] = {each: bindparam(f"its_{each}") for each in changed[0] if each != "name"}
        rows = [{f"its_{key}": value for key, value in row.items()} for row in changed]
        connection.execute(change.values(values), rows)
    new = sorted(views.keys() - known.keys())
    if not new:
        return {}
    room, why = _room(connection, call)
    taken = new if room is None else new[:room]
    if taken:
        fixed = {"tenant": call.who.tenant, "host": call.who.host, "created": call.now}
        rows = [{"id": ids.new(), **fixed, **_row(call, name, views[name])} for name in taken]
        connection.execute(insert(tables.vms), rows)
    return dict.fromkeys(new[len(taken) :], why)


def _row(call: Call, name: str, view: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"name": name, "seen": call.now, **told_by(view)}


def told_by(view: Mapping[str, Any] | None) -> dict[str, Any]:
    """The columns of what a host says of a VM, which may be anything. ``due``: of its next backup; None: there is none
    to come."""
    if view is None:
        return {"view": None, "doing": None, "due": None}
    doing, due = view.get("doing"), view.get("due")
    verb = str(doing.get("verb", ""))[:16] if isinstance(doing, Mapping) else None
    moment = number(due) if view.get("state") != "paused" else None
    return {"view": dict(view), "doing": verb, "due": moment}


def is_untold(seen: float, host_seen: float | None) -> bool:
    """Its host tells of others, but not of it: it was removed there, or the host's state was made anew."""
    return host_seen is not None and host_seen - seen > UNTOLD_SECONDS


def excuses(verb: str, since: float, now: float) -> bool:
    """Whether what is under way since then, by the host's clock, excuses a backup that is late."""
    return verb in BACKS_UP and abs(now - since) < EXCUSE_SECONDS


def _room(connection: Connection, call: Call) -> tuple[int | None, str]:
    """How many more VMs the tenant may have; None: any number. Hosts that bring new ones take turns, and nothing else
    that refers to the tenant waits for them."""
    query = select(tables.tenants.c.quota_vms).where(tables.tenants.c.id == call.who.tenant)
    quota = connection.execute(query.with_for_update(key_share=True)).scalar()
    if quota is None:
        return None, ""
    count = connection.execute(
        select(func.count()).select_from(tables.vms).where(tables.vms.c.tenant == call.who.tenant)
    ).scalar_one()
    why = f"The quota of {quota} VMs is used up. Remove VMs that are gone, or ask the site for more."
    return max(0, quota - count), why


def busy(connection: Connection, tenant: str) -> list[dict[str, Any]]:
    """Those of which something is under way, for who watches."""
    its = tables.vms.c
    query = (
        select(its.id, its.name, its.seen, its.view, tables.hosts.c.name.label("host_name"))
        .join_from(tables.vms, tables.hosts, its.host == tables.hosts.c.id)
        .where(its.tenant == tenant, its.doing.is_not(None))
        .order_by(its.id)
        .limit(_PAGE)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


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
