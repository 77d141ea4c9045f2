"""What hosts measure of VMs each minute, for the picture of a day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from headstart import batches
from headstart.server import tables
from headstart.server.call import Call
from headstart.server.roles import Right
from headstart.state.series import KEPT_SECONDS, Minute

_HOUR = 3600
#: Rows that one query asks for.
_PORTION = 500


def take(connection: Connection, call: Call, measured: Mapping[str, Iterable[Minute]]) -> None:
    """By VM; of those that are not known nothing is kept. What is known already is replaced."""
    call.who.require(Right.REPORT)
    its = tables.vms.c
    query = select(its.name, its.id).where(its.host == call.who.host, its.name.in_(list(measured)))
    found: dict[tuple[str, int], dict[str, list[Any]]] = {}
    for name, vm in connection.execute(query).all():
        for minute in measured[name]:
            hour = found.setdefault((vm, minute.moment // _HOUR * _HOUR), {})
            hour[str(minute.moment)] = list(astuple(minute)[1:])
    _merge(connection, found)


def _merge(connection: Connection, found: Mapping[tuple[str, int], dict[str, list[Any]]]) -> None:
    its = tables.figures.c
    known: dict[tuple[str, int], Any] = {}
    keys = sorted(found)
    for portion in batches.batched(keys, _PORTION):
        query = select(its.vm, its.hour, its.minutes).where(tuple_(its.vm, its.hour).in_(portion)).with_for_update()
        known.update(
            {(vm, hour): minutes for vm, hour, minutes in connection.execute(query.order_by(its.vm, its.hour))}
        )
    new = [{"vm": vm, "hour": hour, "minutes": found[vm, hour]} for vm, hour in keys if (vm, hour) not in known]
    if new:
        connection.execute(insert(tables.figures), new)
    if known:
        change = update(tables.figures).where(its.vm == bindparam("its_vm"), its.hour == bindparam("its_hour"))
        rows = [
            {"its_vm": vm, "its_hour": hour, "its_minutes": {**minutes, **found[vm, hour]}}
            for (vm, hour), minutes in known.items()
        ]
        connection.execute(change.values(minutes=bindparam("its_minutes")), rows)


def minutes(connection: Connection, vm: str, since: float, until: float) -> list[Minute]:
    """Ascending."""
    its = tables.figures.c
    query = (
        select(its.minutes).where(its.vm == vm, its.hour >= since // _HOUR * _HOUR, its.hour < until).order_by(its.hour)
    )
    found = [
        Minute(int(moment), *values)
        for row in connection.execute(query).scalars()
        for moment, values in row.items()
        if since <= int(moment) < until
    ]
    return sorted(found, key=lambda minute: minute.moment)


def forget_old(connection: Connection, now: float) -> None:
    connection.execute(delete(tables.figures).where(tables.figures.c.hour < now - KEPT_SECONDS - _HOUR))
