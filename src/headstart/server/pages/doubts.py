"""What was found out of a VM's restore points, and speaks against them: damage, a rehearsal in which it did not live.

The newest one that was looked at tells: what is newer shares with it, and was not looked at yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, func, select

from headstart.server import tables
from headstart.server.pages import proofs, words


@dataclass(frozen=True, slots=True)
class Doubt:
    title: str
    why: str


def known(connection: Connection, tenant: str, vm: str | None = None) -> dict[tuple[str, str], Doubt]:
    """By the names of the VM and of its host."""
    return {**_rehearsed(connection, tenant, vm), **_damaged(connection, tenant, vm)}


def _damaged(connection: Connection, tenant: str, vm: str | None) -> dict[tuple[str, str], Doubt]:
    its, newer = tables.snapshots.c, tables.snapshots.alias()
    whole = exists().where(
        newer.c.tenant == tenant,
        newer.c.vm == its.vm,
        newer.c.host == its.host,
        newer.c.repository == its.repository,
        newer.c.created > its.created,
        newer.c.verified.is_not(None),
    )
    query = select(its.vm, its.host, its.created).where(its.tenant == tenant, its.damaged.is_not(None), ~whole)
    if vm is not None:
        query = query.where(its.vm == vm)
    return {
        (row.vm, row.host): Doubt("Damaged", f"Verifying found the restore point of {words.when(row.created)} damaged.")
        for row in sorted(connection.execute(query), key=lambda row: row.created)
    }


def _rehearsed(connection: Connection, tenant: str, vm: str | None) -> dict[tuple[str, str], Doubt]:
    its = tables.snapshots.c
    mine = [its.tenant == tenant, its.rehearsed.is_not(None)]
    if vm is not None:
        mine.append(its.vm == vm)
    newest = select(its.tenant, its.vm, its.host, func.max(its.created).label("created")).where(*mine)
    last = newest.group_by(its.tenant, its.vm, its.host).subquery()
    # With the tenant out of there: SQLite would begin with all that is the tenant's otherwise.
    same = and_(*(its[name] == column for name, column in last.c.items()), its.rehearsed.is_not(None))
    query = select(its.vm, its.host, its.created, its.rehearsed, its.proof).join_from(tables.snapshots, last, same)
    found = {}
    for row in connection.execute(query):
        shown = proofs.of({"proof": row.proof, "rehearsed": row.rehearsed})
        if shown is not None and shown.level == "bad":
            why = f"The restore point of {words.when(row.created)} did not live when it was rehearsed. {shown.why}"
            found[row.vm, row.host] = Doubt("Rehearsal failed", why.rstrip())
    return found
