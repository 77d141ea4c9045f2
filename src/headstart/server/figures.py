"""What hosts measure of VMs each minute, for the picture of a day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from headstart.server import tables
from headstart.server.call import Call
from headstart.server.roles import Right
from headstart.state.series import KEPT_SECONDS, Minute

_HOUR = 3600


def take(connection: Connection, call: Call, measured: Mapping[str, Iterable[Minute]]) -> None:
    """By VM; of those that are not known nothing is kept. What is known already is replaced."""
    call.who.require(Right.REPORT)
    its = tables.vms.c
    query = select(its.name, its.id).where(its.host == call.who.host, its.name.in_(list(measured)))
    for name, vm in connection.execute(query).all():
        hours: dict[int, dict[str, list[Any]]] = {}
        for minute in measured[name]:
            hours.setdefault(minute.moment // _HOUR * _HOUR, {})[str(minute.moment)] = list(astuple(minute)[1:])
        for hour, minutes in hours.items():
            _merge(connection, vm, hour, minutes)


def _merge(connection: Connection, vm: str, hour: int, minutes: dict[str, list[Any]]) -> None:
    its = tables.figures.c
    query = select(its.minutes).where(its.vm == vm, its.hour == hour).with_for_update()
    known = connection.execute(query).scalar()
    if known is None:
        connection.execute(insert(tables.figures).values(vm=vm, hour=hour, minutes=minutes))
    else:
        change = update(tables.figures).where(its.vm == vm, its.hour == hour)
        connection.execute(change.values(minutes={**known, **minutes}))


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
