"""Rehearsals: a host that offers itself is asked to start a snapshot, and tells what it saw.

The server has no key of the content, and starts nothing by itself. The job ends when the hosts are asked: what comes of
it, their orders tell.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from headstart import errors
from headstart.server import hosts, orders, snapshots, tables
from headstart.server.call import Call
from headstart.server.jobs import Job
from headstart.server.principal import Principal
from headstart.server.repositories import Place
from headstart.server.roles import Role
from headstart.server.site import Site
from headstart.server.work.contract import Beat, place_of

#: A host that is busy, or sleeps over the night, comes in this time.
_WAIT_SECONDS = 24 * 3600.0


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """Of ``snapshots``, or of the newest of each of ``vms``. Raises ``Unsupported`` where no host offers itself,
    ``NotFound``, ``Usage``."""
    place = place_of(site, job)
    call = Call(Principal("", job.actor, Role.OPERATOR, job.tenant), site.clock())
    asked: dict[str, str] = {}
    with site.database.write() as connection:
        wanted = [str(each) for each in job.arguments.get("snapshots", ())]
        wanted += [_newest(connection, place, str(vm)) for vm in job.arguments.get("vms", ())]
        if not wanted:
            raise errors.Usage("Say which snapshots to rehearse, or of which VMs the newest.")
        for each in wanted:
            host = _offering(connection, call, place, each)
            wish = orders.Wish(orders.Kind.REHEARSE, each, seconds=_WAIT_SECONDS)
            asked[each] = orders.to_host(connection, call, host, wish)
    return {"orders": asked}


def _newest(connection: Connection, place: Place, vm: str) -> str:
    its = tables.snapshots.c
    query = select(its.id).where(its.tenant == place.tenant, its.repository == place.id, its.vm == vm)
    found = connection.execute(query.order_by(its.created.desc()).limit(1)).scalar()
    if found is None:
        raise errors.NotFound(f"There is no snapshot of {vm!r} in the repository.")
    return str(found)


def _offering(connection: Connection, call: Call, place: Place, snapshot: str) -> str:
    """The host that made it, if that offers itself; else the one that was heard of last."""
    found = snapshots.get(connection, call, snapshot, place.id)
    its = tables.hosts.c
    query = select(its.id, its.name, its.state, its.seen).where(
        its.tenant == place.tenant, its.repository == place.id, its.seen >= call.now - hosts.AWAY_SECONDS
    )
    offering = [row for row in connection.execute(query) if row.state.get(orders.OFFERS[orders.Kind.REHEARSE])]
    if not offering:
        raise errors.Unsupported(
            "No host of the repository that is there now offers itself for rehearsals: its owner sets rehearsals in"
            " its own [host]."
        )
    return str(max(offering, key=lambda row: (row.name == found["host"], row.seen)).id)
