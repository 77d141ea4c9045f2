"""Jobs as people see and order them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, select

from headstart import errors
from headstart.server import audit, caution, jobs, kinds, structure, tables
from headstart.server.call import Call
from headstart.server.jobs import State, Wish
from headstart.server.repositories import Place
from headstart.server.roles import Right

_PAGE = 500
#: By these arguments a job removes what would stay otherwise. (What the rules say, policies do.)
_DESTROYS = {
    kinds.FORGET: frozenset({"snapshots"}),
    kinds.GC: frozenset({"quarantine"}),
    kinds.COPY: frozenset({"prune"}),
}
#: What the site sees of tenants' jobs: how they are, and nothing of what they are about.
_HEALTH = ("id", "tenant", "repository", "kind", "state", "created", "due", "begun", "beat", "ended", "attempts")
SHOWN = (*_HEALTH, "actor", "arguments", "progress", "result", "error", "stop")


def order(connection: Connection, call: Call, place: Place, kind: str, arguments: Mapping[str, Any]) -> str:
    """Its id; that of the same one, where that waits already. Raises ``Usage``, ``Denied``,
    ``NotGiven``."""
    known = kinds.ALL.get(kind)
    if known is None or known.right is None or known.of_site:
        raise errors.Usage(f"There is no kind of job {kind!r} to be ordered.")
    call.who.of(known.right)
    if known.needs_structure:
        structure.require_given(place)
    if _DESTROYS.get(known, frozenset()) & arguments.keys():
        caution.require_approved(connection, call)
    once = None if arguments else f"{jobs.NEXT}{kind}:{place.id}:ordered"
    job = jobs.add(connection, Wish(kind, place.tenant, place.id, arguments, call.who.name, once), call.now)
    if job is None:
        same = select(tables.jobs.c.id).where(tables.jobs.c.once == once, tables.jobs.c.tenant == place.tenant)
        return str(connection.execute(same).scalar_one())
    audit.note(connection, call, f"job.{kind}", job, repository=place.id, arguments=dict(arguments))
    return job


def cancel(connection: Connection, call: Call, job: str) -> None:
    """Raises ``NotFound``, ``Denied``."""
    row = connection.execute(_visible(call).where(tables.jobs.c.id == job)).mappings().first()
    if row is None:
        raise _none(job)
    known = kinds.ALL.get(row["kind"])
    # Whoever may order it may end it; what comes by itself, whoever configures.
    call.who.require((known.right if known else None) or (Right.SITE if row["tenant"] is None else Right.CONFIGURE))
    if row["state"] in (State.WAITING, State.RUNNING):
        audit.note(connection, call, "job.cancel", job, kind=row["kind"])
        jobs.stop(connection, job, call.now)


def listed(
    connection: Connection, call: Call, state: str | None = None, before: float | None = None, limit: int = _PAGE
) -> list[dict[str, Any]]:
    """Newest first."""
    its = tables.jobs.c
    query = _visible(call).order_by(its.created.desc(), its.id).limit(min(limit, _PAGE))
    if state is not None:
        query = query.where(its.state == state)
    if before is not None:
        query = query.where(its.created < before)
    return [_shown(call, dict(row)) for row in connection.execute(query).mappings()]


def get(connection: Connection, call: Call, job: str) -> dict[str, Any]:
    """Raises ``NotFound``."""
    row = connection.execute(_visible(call).where(tables.jobs.c.id == job)).mappings().first()
    if row is None:
        raise _none(job)
    return _shown(call, dict(row))


def _visible(call: Call) -> Select[Any]:
    if call.who.tenant is None:
        call.who.require(Right.SIZES)
        return select(tables.jobs)
    mine = tables.jobs.c.tenant == call.who.of(Right.SEE)
    if call.who.repository is not None:
        mine &= tables.jobs.c.repository == call.who.repository
    return select(tables.jobs).where(mine)


def _shown(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    foreign = call.who.tenant is None and row["tenant"] is not None
    return {name: row[name] for name in (_HEALTH if foreign else SHOWN)}


def _none(job: str) -> errors.NotFound:
    return errors.NotFound(f"There is no job {job!r} here.")
