"""What is amiss because nothing happens: hosts that are away, backups that do not come, quotas that fill up.

Somebody has to look. What is found is an event once, and once more when it is over, however many processes look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, select

from headstart.host.account import number
from headstart.server import events, tables, vms
from headstart.server.call import Call
from headstart.server.events import Event
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.site import Site

#: A host that starts anew is not worth waking anybody.
AWAY_SECONDS = 900.0
#: Of the quota; it is over below the other.
NEAR, FAR = 0.9, 0.85
#: Any number that no other program takes.
_LOOKING = 0x48444C4F
#: What is said when it is over.
_OVER = {"backup.late": "backup.caught-up", "host.away": "host.back", "quota.near": None}
_OF_SERVER = "server"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Lapse:
    """``host`` is its name, ``since`` when it began, seconds since 1970."""

    tenant: str
    host: str
    vm: str | None
    since: float
    facts: Mapping[str, Any]


def look(site: Site) -> int:
    """How many events there were."""
    now = site.clock()
    with site.database.read() as connection:
        if not _changes(connection, now):
            return 0
    with site.database.write() as connection:
        if not site.database.alone(connection, _LOOKING):
            return 0
        new, over = _compared(connection, now)
        its = tables.lapses.c
        for (kind, subject), lapse in new.items():
            fixed = {"kind": kind, "object": subject, "tenant": lapse.tenant}
            connection.execute(
                insert(tables.lapses).values(**fixed, host=lapse.host[:64], vm=lapse.vm, since=lapse.since)
            )
        for kind, subject in over:
            connection.execute(delete(tables.lapses).where(its.kind == kind, its.object == subject))
        return _tell(connection, now, new, over)


def _changes(connection: Connection, now: float) -> bool:
    return any(_compared(connection, now))


def _compared(connection: Connection, now: float) -> tuple[dict[Key, Lapse], dict[Key, Lapse]]:
    """What is new, and what is over."""
    rows = connection.execute(select(tables.lapses)).mappings()
    known = {
        (row["kind"], row["object"]): Lapse(row["tenant"], row["host"], row["vm"], row["since"], {}) for row in rows
    }
    found = dict(_found(connection, now, known))
    new = {key: lapse for key, lapse in found.items() if key not in known}
    return new, {key: lapse for key, lapse in known.items() if key not in found}


def _found(connection: Connection, now: float, known: Mapping[Key, Lapse]) -> Iterator[tuple[Key, Lapse]]:
    yield from _away(connection, now)
    yield from _late(connection, now, known)
    yield from _full(connection, now, known)


def _away(connection: Connection, now: float) -> Iterator[tuple[Key, Lapse]]:
    its = tables.hosts.c
    query = select(its.id, its.tenant, its.name, its.seen, its.state).where(its.seen < now - AWAY_SECONDS)
    for row in connection.execute(query):
        if "left" not in row.state:
            yield ("host.away", row.id), Lapse(row.tenant, row.name, None, row.seen, {"since": row.seen})


def _late(connection: Connection, now: float, known: Mapping[Key, Lapse]) -> Iterator[tuple[Key, Lapse]]:
    its, hosts = tables.vms.c, tables.hosts.c
    # Views are long, and most that are late do nothing.
    view = case((its.doing.in_(vms.BACKS_UP), its.view)).label("view")
    query = select(
        its.id,
        its.tenant,
        its.name,
        its.due,
        its.last_success,
        its.seen,
        view,
        hosts.name.label("host"),
        hosts.seen.label("host_seen"),
    ).join_from(tables.vms, tables.hosts, its.host == hosts.id)
    for row in connection.execute(query.where(its.due < now - vms.LATE_SECONDS)):
        # It may fail, as the one before did: what is told to be late is so until it is done.
        if ("backup.late", row.id) not in known and _is_excused(row.view, row.seen, row.host_seen, now):
            continue
        facts = {"due": row.due, "last_success": row.last_success}
        yield ("backup.late", row.id), Lapse(row.tenant, row.host, row.name, row.due, facts)


def _is_excused(view: Mapping[str, Any] | None, seen: float, host_seen: float | None, now: float) -> bool:
    """The backup is being made; as far as that is news. ``view``: of one that is."""
    if view is None or host_seen is None or host_seen < now - AWAY_SECONDS or vms.is_untold(seen, host_seen):
        return False
    since = number(view["doing"].get("since"))
    return since is not None and vms.excuses(view["doing"]["verb"], since, now)


def _full(connection: Connection, now: float, known: Mapping[Key, Lapse]) -> Iterator[tuple[Key, Lapse]]:
    its, tenants = tables.repositories.c, tables.tenants.c
    query = (
        select(tenants.id, tenants.quota_bytes, func.sum(its.used_bytes).label("used"))
        .join_from(tables.tenants, tables.repositories, its.tenant == tenants.id)
        .where(tenants.quota_bytes > 0)
        .group_by(tenants.id, tenants.quota_bytes)
    )
    for row in connection.execute(query):
        share = FAR if ("quota.near", row.id) in known else NEAR
        if row.used >= share * row.quota_bytes:
            facts = {"used_bytes": int(row.used), "quota_bytes": row.quota_bytes}
            yield ("quota.near", row.id), Lapse(row.id, _OF_SERVER, None, now, facts)


def _tell(connection: Connection, now: float, new: Mapping[Key, Lapse], over: Mapping[Key, Lapse]) -> int:
    told: list[tuple[Lapse, Event]] = [(lapse, Event(kind, lapse.vm, lapse.facts)) for (kind, _), lapse in new.items()]
    for (kind, subject), lapse in over.items():
        name = _OVER.get(kind)
        if name is not None and (kind != "host.away" or not _left(connection, subject)):
            told.append((lapse, Event(name, lapse.vm, {"since": lapse.since})))
    for tenant, host in sorted({(lapse.tenant, lapse.host) for lapse, _ in told}):
        call = Call(Principal(_OF_SERVER, host, Role.SITE, tenant), now)
        events.note_all(connection, call, _of(told, tenant, host))
    return len(told)


def _of(told: Iterable[tuple[Lapse, Event]], tenant: str, host: str) -> list[Event]:
    return [event for lapse, event in told if (lapse.tenant, lapse.host) == (tenant, host)]


def _left(connection: Connection, host: str) -> bool:
    """It is not away any longer, as it is none of ours."""
    state = connection.execute(select(tables.hosts.c.state).where(tables.hosts.c.id == host)).scalar()
    return state is None or "left" in state
