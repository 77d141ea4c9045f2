"""The catalogue: what snapshots there are. The repositories say so; this is for looking it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from headstart import errors
from headstart.host.account import number
from headstart.server import ids, tables
from headstart.server.call import Call
from headstart.server.roles import Right

_PAGE = 1000
#: What a proof tells (``repository.proof.Proof``).
_PROOF = ("time", "host", "passed", "seconds", "awaited", "reason", "checks")


@dataclass(frozen=True, slots=True)
class Entry:
    """None: not known, as of snapshots of which only the manifest is left. ``place``: the address of the repository
    that has it, where that is not the one of the host here."""

    id: str
    vm: str
    created: float
    consistency: str
    size: int
    changed_bytes: int | None = None
    residue_bytes: int | None = None
    stored_bytes: int | None = None
    window_seconds: float | None = None
    place: str | None = None


def of_report(report: Mapping[str, Any]) -> Entry | None:
    """None for what is no report of a backup: a host may be of another version."""
    try:
        disks = report["disks"]
        found = Entry(
            id=str(report["snapshot"]),
            vm=str(report["vm"]),
            created=_moment(report["created"]),
            consistency=str(report["consistency"]),
            size=sum(int(disk["size"]) for disk in disks),
            changed_bytes=sum(int(disk["changed_bytes"]) for disk in disks),
            residue_bytes=sum(int(disk["residue_bytes"]) for disk in disks),
            stored_bytes=sum(int(disk["stored_bytes"]) for disk in disks),
            window_seconds=float(report["window_seconds"]),
            place=str(report["place"])[:1024] if report.get("place") else None,
        )
    except (KeyError, TypeError, ValueError):
        return None
    return found if ids.is_id(found.id) else None


def _moment(told: object) -> float:
    found = number(told)
    if found is None:
        raise ValueError(f"{told!r} is no moment.")
    return found


def add(connection: Connection, call: Call, entry: Entry) -> None:
    """By a host, of its repository. Of one that is there already what is said now holds, and what was found out of it
    (verified, rehearsed) stays."""
    its = tables.snapshots.c
    known = connection.execute(
        update(tables.snapshots)
        .where(its.repository == call.who.repository, its.id == entry.id)
        .values({each: value for each, value in _values(entry).items() if value is not None})
    )
    if known.rowcount:
        return
    name = connection.execute(select(tables.hosts.c.name).where(tables.hosts.c.id == call.who.host)).scalar() or ""
    fixed = {"repository": call.who.repository, "tenant": call.who.tenant, "host": name, "id": entry.id}
    connection.execute(insert(tables.snapshots).values(**fixed, **_values(entry)))


def note_rehearsed(connection: Connection, call: Call, snapshot: str, told: Mapping[str, Any]) -> None:
    """By a host, of its repository: what a rehearsal has shown. An older one than that which is known tells nothing."""
    moment = number(told.get("time"))
    moment = call.now if moment is None else min(moment, call.now)
    its = tables.snapshots.c
    older = its.rehearsed.is_(None) | (its.rehearsed <= moment)
    mine = (its.tenant == call.who.tenant, its.repository == call.who.repository, its.id == snapshot)
    shown = {name: told[name] for name in _PROOF if name in told}
    connection.execute(update(tables.snapshots).where(*mine, older).values(proof=shown, rehearsed=moment))


def _values(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if name != "id"}


def listed(
    connection: Connection, call: Call, vm: str | None = None, before: float | None = None, limit: int = _PAGE
) -> list[dict[str, Any]]:
    """Newest first; ``vm`` by its name."""
    tenant = call.who.of(Right.SEE, bound=True)
    its = tables.snapshots.c
    query = select(tables.snapshots).where(its.tenant == tenant).order_by(its.created.desc()).limit(min(limit, _PAGE))
    if call.who.repository is not None:
        query = query.where(its.repository == call.who.repository)
    if vm is not None:
        query = query.where(its.vm == vm)
    if before is not None:
        query = query.where(its.created < before)
    return [dict(row) for row in connection.execute(query).mappings()]


def get(connection: Connection, call: Call, snapshot: str) -> dict[str, Any]:
    """Raises ``NotFound``."""
    tenant = call.who.of(Right.SEE, bound=True)
    its = tables.snapshots.c
    query = select(tables.snapshots).where(its.tenant == tenant, its.id == snapshot)
    if call.who.repository is not None:
        query = query.where(its.repository == call.who.repository)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise errors.NotFound(f"There is no snapshot {snapshot!r} here.")
    return dict(row)


def require_in(connection: Connection, call: Call, repository: str, snapshot: str) -> None:
    """Raises ``NotFound``."""
    its = tables.snapshots.c
    query = select(its.id).where(its.repository == repository, its.id == snapshot, its.tenant == call.who.tenant)
    if connection.execute(query).first() is None:
        raise errors.NotFound(f"There is no snapshot {snapshot!r} here.")
