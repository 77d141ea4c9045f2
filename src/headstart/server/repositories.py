"""Repositories of tenants: each has a prefix of its own in the server's store, and is a domain of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from headstart import errors, units
from headstart.repository import protection
from headstart.server import audit, caution, ids, jobs, kinds, tables
from headstart.server.call import Call
from headstart.server.jobs import Wish
from headstart.server.principal import Principal
from headstart.server.roles import Right
from headstart.server.site import Site
from headstart.store.contract import Store

#: What the password of a repository's structure is sealed for.
STRUCTURE = "structure"
#: Names of repositories that are being removed: no other one can be called so. 64 characters with the id.
_GONE, _SHOWN = "~", 31


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a tenant's. ``immutable_days``: nobody removes an object that is younger."""

    id: str
    tenant: str
    name: str
    immutable_days: int
    has_structure: bool

    def store(self, site: Site) -> Store:
        return site.place((self.tenant, self.id))


def create(connection: Connection, call: Call, name: str, immutable_days: int = 0) -> str:
    tenant = call.who.of(Right.CONFIGURE)
    if not ids.is_name(name):
        raise errors.Usage(
            "A name takes letters, digits, '.', '_' and '-', 64 at most, and begins with one of the first two."
        )
    if not 0 <= immutable_days <= protection.MAX_DAYS:
        raise errors.Usage(f"Objects can be immutable for 0 to {protection.MAX_DAYS} days.")
    if named(connection, tenant, name) is not None:
        raise errors.TargetRefused(f"There is a repository {name!r} already.")
    repository = ids.new()
    connection.execute(
        insert(tables.repositories).values(
            id=repository,
            tenant=tenant,
            name=name,
            created=call.now,
            used_bytes=0,
            objects=0,
            immutable_days=immutable_days,
        )
    )
    audit.note(connection, call, "repository.create", repository, name=name, immutable_days=immutable_days)
    return repository


def configure(connection: Connection, call: Call, name_or_id: str, immutable_days: int) -> None:
    """Fewer days hold for what is there already, too: that is a destructive act. Raises ``NotFound``, ``Denied``."""
    call.who.of(Right.CONFIGURE)
    place = get(connection, call.who, name_or_id)
    if not 0 <= immutable_days <= protection.MAX_DAYS:
        raise errors.Usage(f"Objects can be immutable for 0 to {protection.MAX_DAYS} days.")
    if immutable_days < place.immutable_days:
        caution.require_approved(connection, call)
    change = update(tables.repositories).where(tables.repositories.c.id == place.id)
    connection.execute(change.values(immutable_days=immutable_days))
    facts = {"name": place.name, "immutable_days": immutable_days, "before": place.immutable_days}
    audit.note(connection, call, "repository.configure", place.id, **facts)


def require_removable(connection: Connection, call: Call, name_or_id: str) -> Place:
    """Raises ``NotFound``, ``Busy`` where hosts use it."""
    call.who.of(Right.DELETE)
    place = get(connection, call.who, name_or_id)
    if connection.execute(select(tables.hosts.c.id).where(tables.hosts.c.repository == place.id)).first():
        raise errors.Busy(f"Hosts have joined for {place.name!r}. Remove them first.")
    return place


def remove(connection: Connection, call: Call, name_or_id: str) -> Place:
    """Nobody reaches it from now on, its name is free again, and jobs of it end. Its objects are taken away by a job of
    the kind ``remove``: what is immutable still, when that is over. Raises as ``require_removable``."""
    place = require_removable(connection, call, name_or_id)
    caution.require_approved(connection, call)
    its = tables.repositories.c
    gone = {"removed": call.now, "name": f"{place.name[:_SHOWN]}{_GONE}{place.id}", "structure": None}
    connection.execute(update(tables.repositories).where(its.id == place.id).values(gone))
    for table in (tables.tokens, tables.snapshots, tables.packs_read):
        connection.execute(delete(table).where(table.c.repository == place.id))
    for each in jobs.open_of(connection, place.tenant, place.id):
        jobs.stop(connection, each, call.now)
    wish = Wish(kinds.REMOVE.name, place.tenant, None, {"repository": place.id}, call.who.name)
    job = jobs.add(connection, wish, call.now)
    audit.note_for(connection, call, place.tenant, "repository.remove", place.id, name=place.name, job=job)
    return place


def former_name(name: str) -> str:
    """The (beginning of the) name that a repository had which is being removed."""
    return name.partition(_GONE)[0]


def named(connection: Connection, tenant: str, name_or_id: str) -> Place | None:
    its = tables.repositories.c
    query = select(tables.repositories).where(
        its.tenant == tenant, its.removed.is_(None), (its.id == name_or_id) | (its.name == name_or_id)
    )
    # An id is nobody's name but by intent: then the id is meant.
    rows = sorted(connection.execute(query).mappings(), key=lambda row: row["id"] != name_or_id)
    return _place(dict(rows[0])) if rows else None


def get(connection: Connection, who: Principal, name_or_id: str) -> Place:
    """One that this caller can reach. Raises ``NotFound``, alike whether it is somebody else's or nobody's."""
    found = named(connection, who.tenant, name_or_id) if who.tenant is not None else None
    if found is None or who.repository not in (None, found.id):
        raise errors.NotFound(f"There is no repository {name_or_id!r} here.")
    return found


def _place(row: dict[str, Any]) -> Place:
    return Place(row["id"], row["tenant"], row["name"], row["immutable_days"], row["structure"] is not None)


def reserve(connection: Connection, place: Place, size: int) -> None:
    """Count an object before it is stored: of two that would be too much together, one is refused (``NoSpace``)."""
    its, tenants = tables.repositories.c, tables.tenants.c
    # Who comes second waits here, and sees what the first has taken. Nothing else that refers to the tenant waits.
    query = select(tenants.quota_bytes).where(tenants.id == place.tenant, tenants.quota_bytes.is_not(None))
    quota = connection.execute(query.with_for_update(key_share=True)).scalar()
    count(connection, place, size, 1)
    if quota is None:
        return
    used = connection.execute(select(func.sum(its.used_bytes)).where(its.tenant == place.tenant)).scalar() or 0
    if used > quota:
        raise errors.NoSpace(
            f"The quota of {units.format_bytes(quota)} is used up. Forget snapshots and collect garbage, or ask the"
            " site for more."
        )


def count(connection: Connection, place: Place, size: int, objects: int) -> None:
    """Raises ``NotFound`` where something would be added to one that is being removed."""
    its = tables.repositories.c
    change = update(tables.repositories).where(its.id == place.id, its.removed.is_(None))
    more = {"used_bytes": its.used_bytes + size, "objects": its.objects + objects}
    if not connection.execute(change.values(more)).rowcount and objects > 0:
        raise errors.NotFound(f"There is no repository {place.name!r} here.")
