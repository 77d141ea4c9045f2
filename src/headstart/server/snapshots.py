"""The catalogue: what snapshots there are. The repositories say so; this is for looking it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Exists, case, exists, insert, select, update

from headstart import errors
from headstart.host.account import number
from headstart.server import events, ids, tables
from headstart.server.call import Call
from headstart.server.events import Event
from headstart.server.roles import Right

_PAGE = 1000
#: Of why a rehearsal has not passed.
_LONGEST = 1000
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


def add(connection: Connection, call: Call, entry: Entry) -> bool:
    """By a host, of its repository; whether it was not known yet. Of one that is there already what is said now holds,
    and what was found out of it (verified, rehearsed) stays."""
    its = tables.snapshots.c
    known = connection.execute(
        update(tables.snapshots)
        .where(its.repository == call.who.repository, its.id == entry.id)
        .values({each: value for each, value in _values(entry).items() if value is not None})
    )
    if known.rowcount:
        return False
    name = connection.execute(select(tables.hosts.c.name).where(tables.hosts.c.id == call.who.host)).scalar() or ""
    fixed = {"repository": call.who.repository, "tenant": call.who.tenant, "host": name, "id": entry.id}
    connection.execute(insert(tables.snapshots).values(**fixed, **_values(entry)))
    return True


def note_rehearsed(connection: Connection, call: Call, snapshot: str, told: Mapping[str, Any]) -> None:
    """By a host, of its repository: what a rehearsal has shown. An older one than that which is known tells nothing."""
    moment = number(told.get("time"))
    moment = call.now if moment is None else min(moment, call.now)
    its = tables.snapshots.c
    older = its.rehearsed.is_(None) | (its.rehearsed <= moment)
    mine = (its.tenant == call.who.tenant, its.repository == call.who.repository, its.id == snapshot)
    shown = {name: told[name] for name in _PROOF if name in told}
    connection.execute(update(tables.snapshots).where(*mine, older).values(proof=shown, rehearsed=moment))


def take_proofs(connection: Connection, call: Call, reports: Iterable[Mapping[str, Any]]) -> None:
    """What a host's own rehearsals have shown; the same may be told again. Last in its transaction, as
    ``events.note_all``."""
    call.who.require(Right.REPORT)
    found: list[Event | None] = []
    for report in reports:
        snapshot, shown = str(report.get("snapshot")), report.get("rehearsed")
        if isinstance(shown, Mapping) and ids.is_id(snapshot):
            note_rehearsed(connection, call, snapshot, shown)
            found.append(failure(connection, call, str(report.get("vm"))[:255], snapshot, shown))
    events.note_all(connection, call, filter(None, found))


def failure(
    connection: Connection, call: Call, vm: str | None, snapshot: str, shown: Mapping[str, Any]
) -> Event | None:
    """What there is to tell of a rehearsal: that it has not passed, once."""
    if shown.get("passed") is True:
        return None
    begun, why = number(shown.get("time")), str(shown.get("reason") or "")[:_LONGEST]
    event = Event("rehearse.failed", vm, {"snapshot": snapshot, "begun": begun, "error": why})
    return None if begun is not None and events.is_noted(connection, call, event) else event


def _values(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if name != "id"}


def listed(
    connection: Connection,
    call: Call,
    vm: str | None = None,
    before: float | None = None,
    limit: int = _PAGE,
    *,
    once: bool = False,
) -> list[dict[str, Any]]:
    """Newest first; ``vm`` by its name. ``once``: of what several repositories have the copy that ``get`` finds."""
    tenant = call.who.of(Right.SEE, bound=True)
    its = tables.snapshots.c
    query = select(tables.snapshots).where(its.tenant == tenant).order_by(its.created.desc()).limit(min(limit, _PAGE))
    if call.who.repository is not None:
        query = query.where(its.repository == call.who.repository)
    if vm is not None:
        query = query.where(its.vm == vm)
    if before is not None:
        query = query.where(its.created < before)
    if once:
        query = query.where(~_better())
    return [dict(row) for row in connection.execute(query).mappings()]


def _worse(its: Any) -> ColumnElement[int]:
    """Of copies in several repositories: those where a host has it come after those in a repository of ours, and those
    that a catalogue alone tells of after those of whoever made it."""
    return case((its.place.is_not(None), 2), else_=0) + case((its.changed_bytes.is_(None), 1), else_=0)


def _better() -> Exists:
    """Another copy."""
    its, other = tables.snapshots.c, tables.snapshots.alias().c
    mine, theirs = _worse(its), _worse(other)
    before = (theirs < mine) | ((theirs == mine) & (other.repository < its.repository))
    return exists().where(other.tenant == its.tenant, other.id == its.id, before)


def copies(connection: Connection, call: Call, snapshot: str, repository: str | None = None) -> list[dict[str, Any]]:
    """One for each repository that has it, that of ``repository`` first. Raises ``NotFound``."""
    tenant = call.who.of(Right.SEE, bound=True)
    its = tables.snapshots.c
    query = select(tables.snapshots).where(its.tenant == tenant, its.id == snapshot)
    if call.who.repository is not None:
        query = query.where(its.repository == call.who.repository)
    rows = connection.execute(query.order_by(_worse(its), its.repository)).mappings()
    found = sorted((dict(row) for row in rows), key=lambda row: row["repository"] != repository)
    if not found:
        raise errors.NotFound(f"There is no snapshot {snapshot!r} here.")
    return found


def get(connection: Connection, call: Call, snapshot: str, repository: str | None = None) -> dict[str, Any]:
    """The first of its ``copies``. Raises ``NotFound``."""
    return copies(connection, call, snapshot, repository)[0]


def require_in(connection: Connection, call: Call, repository: str, snapshot: str) -> None:
    """Raises ``NotFound``."""
    its = tables.snapshots.c
    query = select(its.id).where(its.repository == repository, its.id == snapshot, its.tenant == call.who.tenant)
    if connection.execute(query).first() is None:
        raise errors.NotFound(f"There is no snapshot {snapshot!r} here.")
