"""What hosts are asked to do. They come and fetch it; nobody reaches into one.

::

    waiting  ->  taken  ->  done, failed        each step is told by the host
       |           '-> stopping ->  done, failed        (a VM that runs by order; by somebody)
       |-> withdrawn (by somebody)  expired (it did not come in time)

A host takes an order once. What it had begun when it was started anew has failed: nothing is repeated by itself.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from headstart import errors
from headstart.host.booter import MOST_HOURS
from headstart.server import audit, events, ids, snapshots, tables, vms
from headstart.server.call import Call
from headstart.server.roles import Right

#: An order waits for its host for so long, unless somebody says otherwise.
WAITS_SECONDS = 3600.0
#: Orders of one host that wait at a time: of those that take long, and of the others.
MOST = 50
#: Those that take long of which a host is told at a time.
OFFERED = 4
_PAGE = 500


class Kind(enum.StrEnum):
    BACKUP = "backup"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    REHEARSE = "rehearse"
    RESTORE = "restore"
    BOOT = "boot"


class State(enum.StrEnum):
    WAITING = "waiting"
    TAKEN = "taken"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


#: Done at once, and about what is under way: they come whatever else waits.
_AT_ONCE = (Kind.PAUSE, Kind.RESUME, Kind.CANCEL)
_WITH_HOST = (State.TAKEN, State.STOPPING)
_OPEN = (State.WAITING, *_WITH_HOST)
#: They need a snapshot, and a host that offers itself, under this name in its state.
OFFERS = {Kind.RESTORE: "restores", Kind.REHEARSE: "rehearsals", Kind.BOOT: "boots"}
_OFFERED_BY = {Kind.RESTORE: "restore_into", Kind.REHEARSE: "rehearsals", Kind.BOOT: "boots"}
#: A VM runs by order for so long, unless somebody says otherwise.
HOURS = 4.0


@dataclass(frozen=True, slots=True)
class Wish:
    """``disks`` of the snapshot, empty: all; ``folder``: the name of a new one where the host's owner allows it, empty:
    one that tells VM and snapshot; ``format`` of the images. ``seconds``: the order waits for its host for so long;
    ``hours``: a booted VM runs for so long at most."""

    kind: Kind
    snapshot: str | None = None
    disks: tuple[str, ...] = ()
    folder: str = ""
    format: str = "qcow2"
    seconds: float = WAITS_SECONDS
    hours: float = HOURS


@dataclass(frozen=True, slots=True)
class Told:
    """What a host says of one that it has."""

    state: State
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


def to_vm(connection: Connection, call: Call, vm: str, wish: Wish) -> str:
    """Its id. Raises ``NotFound``, ``Denied``, ``Usage``, ``TooOften``."""
    found = vms.get(connection, call, vm)
    return _give(connection, call, found["host"], found["name"], wish)


def to_host(connection: Connection, call: Call, host: str, wish: Wish) -> str:
    """As ``to_vm``; of a snapshot of any VM of the tenant's."""
    call.who.require(Right.RESTORE)
    if wish.kind not in OFFERS:
        raise errors.Usage(f"'{wish.kind}' is for a VM, and not for a host.")
    return _give(connection, call, host, None, wish)


def _give(connection: Connection, call: Call, host: str, vm: str | None, wish: Wish) -> str:
    tenant = call.who.of(Right.RESTORE if wish.kind in OFFERS else Right.ORDER)
    its = tables.hosts.c
    query = select(tables.hosts).where(its.id == host, its.tenant == tenant).with_for_update()
    found = connection.execute(query).mappings().first()
    if found is None or call.who.repository not in (None, found["repository"]):
        raise errors.NotFound(f"There is no host {host!r} here.")
    arguments: dict[str, Any] = {}
    if wish.kind in OFFERS:
        arguments = _of_snapshot(connection, call, dict(found), wish)
        vm = vm or arguments["vm"]
    elif wish.snapshot or wish.disks or wish.folder:
        raise errors.Usage(f"'{wish.kind}' has nothing to do with a snapshot.")
    _require_room(connection, host, wish.kind, call.now)
    order = ids.new()
    values = {"id": order, "tenant": tenant, "host": host, "vm": vm, "kind": wish.kind, "arguments": arguments}
    times = {"created": call.now, "expires": call.now + wish.seconds, "changed": call.now}
    connection.execute(insert(tables.orders).values(**values, **times, state=State.WAITING, actor=call.who.name))
    audit.note(connection, call, f"order.{wish.kind}", order, **{**arguments, "host": found["name"], "vm": vm})
    return order


def _of_snapshot(connection: Connection, call: Call, host: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
    if wish.snapshot is None:
        raise errors.Usage(f"Say which snapshot to {wish.kind}.")
    found = snapshots.get(connection, call, wish.snapshot, host["repository"])
    offers = host["state"].get(OFFERS[wish.kind])
    if not offers:
        key = _OFFERED_BY[wish.kind]
        raise errors.Busy(f"The host {host['name']!r} does not offer that: its owner sets {key} in its own [host].")
    # One that is nowhere but with its host can be restored there alone.
    if found["repository"] != host["repository"] or (found["place"] and found["host"] != host["name"]):
        raise errors.Busy(f"The host {host['name']!r} does not have the repository of that snapshot.")
    arguments: dict[str, Any] = {"snapshot": found["id"], "vm": found["vm"]}
    if wish.kind is Kind.RESTORE:
        if wish.folder and not ids.is_name(wish.folder):
            raise errors.Usage("The folder is a name, and no path.")
        arguments |= {"disks": list(wish.disks), "folder": wish.folder, "format": wish.format}
    if wish.kind is Kind.BOOT:
        if not 0 < wish.hours <= MOST_HOURS:
            raise errors.Usage(f"A VM runs by order for more than 0 and at most {MOST_HOURS:.0f} hours.")
        arguments |= {"hours": wish.hours}
    return arguments


def _require_room(connection: Connection, host: str, kind: Kind, now: float) -> None:
    its = tables.orders.c
    alike = its.kind.in_(_AT_ONCE) if kind in _AT_ONCE else its.kind.not_in(_AT_ONCE)
    query = select(func.count()).select_from(tables.orders)
    count = connection.execute(
        query.where(its.host == host, its.state == State.WAITING, its.expires > now, alike)
    ).scalar_one()
    if count >= MOST:
        raise errors.TooOften(f"{count} orders wait for this host already. Is it away?", seconds=60)


def withdraw(connection: Connection, call: Call, order: str) -> State:
    """What it is from now on: of one that its host has taken a VM that runs by it is stopped. Of other kinds raises
    ``Busy``: cancel what it does."""
    found = get(connection, call, order)
    call.who.require(Right.RESTORE if found["kind"] in OFFERS else Right.ORDER)
    its = tables.orders.c
    done = connection.execute(
        update(tables.orders)
        .where(its.id == order, its.tenant == call.who.tenant, its.state == State.WAITING)
        .values(state=State.WITHDRAWN, changed=call.now)
    )
    if done.rowcount:
        audit.note(connection, call, "order.withdraw", order)
        return State.WITHDRAWN
    if found["kind"] != Kind.BOOT:
        raise errors.Busy("Its host has that order already.")
    stopped = connection.execute(
        update(tables.orders)
        .where(its.id == order, its.tenant == call.who.tenant, its.state.in_(_WITH_HOST))
        .values(state=State.STOPPING, changed=call.now)
    )
    if not stopped.rowcount:
        raise errors.Busy("That order is over already.")
    audit.note(connection, call, "order.stop", order)
    return State.STOPPING


def get(connection: Connection, call: Call, order: str) -> dict[str, Any]:
    """Raises ``NotFound``."""
    tenant = call.who.of(Right.SEE)
    its = tables.orders.c
    row = connection.execute(_query().where(its.id == order, its.tenant == tenant)).mappings().first()
    if row is None:
        raise errors.NotFound(f"There is no order {order!r} here.")
    return _shown(dict(row), call.now)


def listed(
    connection: Connection, call: Call, vm: str | None = None, open_only: bool = False, limit: int = _PAGE
) -> list[dict[str, Any]]:
    """Newest first; ``vm`` by its name."""
    tenant = call.who.of(Right.SEE)
    its = tables.orders.c
    query = _query().where(its.tenant == tenant).order_by(its.created.desc(), its.id).limit(min(limit, _PAGE))
    if vm is not None:
        query = query.where(its.vm == vm)
    if open_only:
        query = query.where(its.state.in_(_OPEN), (its.state != State.WAITING) | (its.expires > call.now))
    return [_shown(dict(row), call.now) for row in connection.execute(query).mappings()]


def _query() -> Any:
    its = tables.orders.c
    return select(tables.orders, tables.hosts.c.name.label("host_name")).join_from(
        tables.orders, tables.hosts, its.host == tables.hosts.c.id
    )


def _shown(row: dict[str, Any], now: float) -> dict[str, Any]:
    """Nobody has to come by for an order to expire."""
    expired = row["state"] == State.WAITING and row["expires"] <= now
    return {**row, "state": State.EXPIRED} if expired else row


# the host's own end


def waiting(connection: Connection, call: Call) -> list[dict[str, Any]]:
    """What a host is to be told of now: what is done at once, then some of what takes long; each the oldest first."""
    call.who.require(Right.REPORT)
    its = tables.orders.c
    mine = (its.host == call.who.host, its.state == State.WAITING, its.expires > call.now)
    query = select(its.id, its.kind, its.vm, its.arguments).where(*mine).order_by(its.created, its.id)
    at_once = connection.execute(query.where(its.kind.in_(_AT_ONCE))).mappings().all()
    long = connection.execute(query.where(its.kind.not_in(_AT_ONCE)).limit(OFFERED)).mappings().all()
    return [dict(row) for row in (*at_once, *long)]


def told(connection: Connection, call: Call, has: Mapping[str, Told]) -> dict[str, str]:
    """What a host says of those that it has, by id; returns the states that hold: it does only what is taken, and
    forgets what is over. Those that it took and does not know any longer have failed: its state was lost. The same may
    be said again."""
    call.who.require(Right.REPORT)
    its = tables.orders.c
    mine = tables.orders.c.host == call.who.host
    query = select(tables.orders).where(mine, its.state.in_(_WITH_HOST) | its.id.in_(list(has))).with_for_update()
    found = {row["id"]: dict(row) for row in connection.execute(query.order_by(its.id)).mappings()}
    over: list[events.Event] = []
    states: dict[str, str] = {}
    for order, row in found.items():
        says = has.get(order) or Told(State.FAILED, None, {"error": "The host does not know of it any longer."})
        states[order] = state = _next(row, says, call.now)
        values = {"state": state, "changed": call.now, "progress": says.progress or row["progress"]}
        if state in (State.DONE, State.FAILED):
            values["result"] = dict(says.result)
        if state != row["state"] or says.progress:
            connection.execute(update(tables.orders).where(its.id == order).values(values))
        if state in (State.DONE, State.FAILED) and state != row["state"]:
            facts = {"order": order, "actor": row["actor"], **_short(says.result)}
            over.append(events.Event(f"order.{row['kind']}.{state}", row["vm"], facts))
            if row["kind"] == Kind.REHEARSE and state is State.DONE:
                snapshot = row["arguments"]["snapshot"]
                snapshots.note_rehearsed(connection, call, snapshot, says.result)
                if (failed := snapshots.failure(connection, call, row["vm"], snapshot, says.result)) is not None:
                    over.append(failed)
    events.note_all(connection, call, over)
    # An order that is no longer here, as its tenant's or its host's rows went, is nobody's any longer.
    return {**dict.fromkeys(has, State.WITHDRAWN), **states}


def _next(row: Mapping[str, Any], says: Told, now: float) -> State:
    state = State(row["state"])
    if state is State.WAITING:
        return says.state if row["expires"] > now or says.state is not State.TAKEN else State.EXPIRED
    if state is State.TAKEN:
        return says.state
    if state is State.STOPPING:
        return state if says.state is State.TAKEN else says.state
    # What the host itself says of how it ended is nearer to the truth than that it was not heard of.
    lost = state is State.FAILED and says.state is State.DONE
    return says.state if lost else state


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("error", "snapshot", "directory", "passed", "ended") if name in result}


def forget_old(connection: Connection, now: float) -> None:
    its = tables.orders.c
    old = its.created < now - events.KEPT_SECONDS
    connection.execute(tables.orders.delete().where(old, its.state.not_in(_WITH_HOST)))
