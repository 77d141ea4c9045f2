"""Work on the server's side. This table is the truth: who works on what, and what came of it.

::

    waiting --take--> running --end--> done, failed, cancelled
       ^                 |
       '-- a pause, an orderly end of the worker, or its signs of life stop

Whoever has a job gives signs of life with it. One that is silent for ``DEAD_SECONDS`` has lost it: somebody else may
take it up, and it finds so itself with its next sign. Moments are of the clocks of the machines, which have to agree to
a few seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exc, insert, not_, or_, select, update

from headstart.server import engine, events, ids, kinds, tables
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Role

BEAT_SECONDS = 5.0
DEAD_SECONDS = 30.0
#: A job that fails, in a way that may pass, is tried so often.
ATTEMPTS = 6
_PAUSE_SECONDS, _LONGEST_PAUSE = 5.0, 3600.0
#: What is due for so long, and no bell rang for it, is rung for.
_SILENT_SECONDS = 10.0
#: Those of the site come often, and tell little.
_KEPT_SECONDS, _KEPT_OF_SITE = 60 * 86400.0, 2 * 86400.0
_BATCH = 100
#: A ``once`` that begins so is let go of when its job is taken up: what comes later makes another one.
NEXT = "next:"

_its = tables.jobs.c


class State(enum.StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Sign(enum.Enum):
    """What a worker hears when it gives a sign: go on; end, somebody wants it; it is not yours any longer."""

    ON = enum.auto()
    STOP = enum.auto()
    LOST = enum.auto()


@dataclass(frozen=True, slots=True)
class Wish:
    """``tenant`` None: of the site. ``once``: only if there is none with the same one."""

    kind: str
    tenant: str | None = None
    repository: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    actor: str = "server"
    once: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One that was taken up. ``attempts``: with this one."""

    id: str
    kind: str
    tenant: str | None
    repository: str | None
    arguments: Mapping[str, Any]
    actor: str
    attempts: int


def pause(attempts: int) -> float:
    """Seconds until a job is tried again that failed so often."""
    return float(min(_PAUSE_SECONDS * 4 ** (attempts - 1), _LONGEST_PAUSE))


def add(connection: Connection, wish: Wish, now: float, seconds: float = 0.0) -> str | None:
    """Its id; it is due in ``seconds``. None where there is one of the same ``once``."""
    job = ids.new()
    values = {"id": job, "tenant": wish.tenant, "repository": wish.repository, "kind": wish.kind}
    told = {"arguments": dict(wish.arguments), "actor": wish.actor[:128], "once": wish.once}
    row = {**values, **told, "state": State.WAITING, "created": now, "due": now + seconds, "attempts": 0, "stop": False}
    try:
        with connection.begin_nested():
            connection.execute(insert(tables.jobs).values(row))
    except exc.IntegrityError:
        if wish.once is None:
            raise
        return None
    engine.ring(connection, job, seconds)
    return job


def extend(connection: Connection, wish: Wish, names: Iterable[str], now: float, seconds: float) -> None:
    """As ``add``; the one that waits already gets ``names`` more in the argument of that name. One that runs has let go
    of its ``once``: then there is a new one."""
    query = select(_its.id, _its.arguments, _its.due).where(_its.once == wish.once).with_for_update()
    for _ in range(2):
        row = connection.execute(query).first()
        if row is not None:
            known = {name: sorted({*map(str, row.arguments.get(name, ())), *wish.arguments[name]}) for name in names}
            whole = {**row.arguments, **known}
            if row.due <= now + 2 * seconds:
                connection.execute(update(tables.jobs).where(_its.id == row.id).values(arguments=whole))
                return
            # Its time is of a clock that was ahead, and its bell, too: another one takes its place.
            connection.execute(delete(tables.jobs).where(_its.id == row.id))
            wish = replace(wish, arguments=whole)
        if add(connection, wish, now, seconds) is not None:
            return


# -- for workers


def take(connection: Connection, job: str, worker: str, now: float) -> Job | None:
    """None: it is somebody else's, not due, at its end, or another one of its lane is running."""
    row = connection.execute(select(tables.jobs).where(_its.id == job, _free(now)).with_for_update()).mappings().first()
    if row is None:
        return None
    if row["state"] == State.RUNNING and (row["stop"] or row["attempts"] >= ATTEMPTS):
        state = State.CANCELLED if row["stop"] else State.FAILED
        said = None if row["stop"] else f"Its worker died, {row['attempts']} times. See the logs of the server."
        _end(connection, row, state, now, {"error": said})
        note(connection, _job(row), worker, state, now, {} if said is None else {"error": said})
        return None
    lane = _lane(row["kind"])
    values = {
        "state": State.RUNNING,
        "worker": worker,
        "beat": now,
        "begun": row["begun"] or now,
        "attempts": row["attempts"] + 1,
        "lane": f"{lane}:{row['repository'] or row['tenant'] or ''}",
        "once": _kept(row["once"]),
    }
    try:
        with connection.begin_nested():
            connection.execute(update(tables.jobs).where(_its.id == job).values(values))
    except exc.IntegrityError:
        return None
    return replace(_job(row), attempts=row["attempts"] + 1)


def beat(connection: Connection, job: Job, worker: str, now: float, progress: Mapping[str, Any] | None) -> Sign:
    values = {"beat": now} if progress is None else {"beat": now, "progress": dict(progress)}
    if not connection.execute(update(tables.jobs).where(*_mine(job, worker)).values(values)).rowcount:
        return Sign.LOST
    stop = connection.execute(select(_its.stop).where(_its.id == job.id)).scalar()
    return Sign.STOP if stop else Sign.ON


def end(
    connection: Connection,
    job: Job,
    worker: str,
    state: State,
    now: float,
    *,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """False where it is somebody else's by now. Last in its transaction, as ``events.note_all``."""
    row = connection.execute(select(tables.jobs).where(*_mine(job, worker)).with_for_update()).mappings().first()
    if row is None:
        return False
    _end(connection, row, state, now, {"result": None if result is None else dict(result), "error": error})
    note(connection, job, worker, state, now, {} if error is None else {"error": error})
    return True


def note(connection: Connection, job: Job, worker: str, what: str, now: float, facts: Mapping[str, Any]) -> None:
    """An event, for those who watch. What comes by itself is told when it fails."""
    if job.tenant is None or (job.actor == "server" and what != State.FAILED):
        return
    who = Principal(worker, job.actor, Role.SITE, job.tenant)
    told = {"job": job.id, "kind": job.kind, "repository": job.repository, **facts}
    events.note(connection, Call(who, now), f"job.{what}", None, told)


def put_back(
    connection: Connection, job: Job, worker: str, now: float, seconds: float, *, error: str | None, counted: bool
) -> None:
    """It waits again, for so long. Not ``counted``: as if it had not been tried."""
    values = {"state": State.WAITING, "due": now + seconds, "error": error, "lane": None, "worker": None}
    attempts = job.attempts if counted else job.attempts - 1
    change = update(tables.jobs).where(*_mine(job, worker)).values(**values, attempts=attempts)
    if connection.execute(change).rowcount:
        engine.ring(connection, job.id, seconds)


def due(connection: Connection, now: float, limit: int = _BATCH) -> list[str]:
    """What anybody may take up, first come first served."""
    query = select(_its.id).where(_free(now)).order_by(_its.due).limit(limit)
    return list(connection.execute(query).scalars())


def unheard(connection: Connection, now: float) -> list[str]:
    """What is due, and no bell rings for: whoever was to hear it is dead."""
    rung = _its.due.between(now - _SILENT_SECONDS, now)
    query = select(_its.id).where(_free(now), not_(rung)).order_by(_its.due)
    return engine.silent(connection, list(connection.execute(query).scalars()))[:_BATCH]


def forget_old(connection: Connection, now: float) -> None:
    ended = _its.state.in_([State.DONE, State.FAILED, State.CANCELLED])
    old = or_(_its.ended < now - _KEPT_SECONDS, and_(_its.tenant.is_(None), _its.ended < now - _KEPT_OF_SITE))
    connection.execute(delete(tables.jobs).where(ended, old))


def open_of(connection: Connection, tenant: str, repository: str) -> list[str]:
    """What waits or runs in a repository."""
    mine = and_(_its.tenant == tenant, _its.repository == repository)
    query = select(_its.id).where(mine, _its.state.in_([State.WAITING, State.RUNNING]))
    return list(connection.execute(query).scalars())


def stop(connection: Connection, job: str, now: float) -> None:
    """One that waits is cancelled at once; one that runs, when its worker hears of it."""
    row = connection.execute(select(tables.jobs).where(_its.id == job).with_for_update()).mappings().first()
    if row is not None and row["state"] == State.WAITING:
        _end(connection, row, State.CANCELLED, now, {})
    elif row is not None and row["state"] == State.RUNNING:
        connection.execute(update(tables.jobs).where(_its.id == job).values(stop=True))


def _job(row: Mapping[Any, Any]) -> Job:
    whose = (row["tenant"], row["repository"], row["arguments"], row["actor"])
    return Job(row["id"], row["kind"], *whose, row["attempts"])


def _free(now: float) -> ColumnElement[bool]:
    waiting = and_(_its.state == State.WAITING, _its.due <= now)
    # A sign of life from the time to come is of a clock that was ahead.
    living = _its.beat.between(now - DEAD_SECONDS, now + DEAD_SECONDS)
    return or_(waiting, and_(_its.state == State.RUNNING, not_(living)))


def _mine(job: Job, worker: str) -> tuple[ColumnElement[bool], ...]:
    return _its.id == job.id, _its.state == State.RUNNING, _its.worker == worker


def _lane(kind: str) -> str:
    return kinds.ALL[kind].lane if kind in kinds.ALL else kind


def _kept(once: str | None) -> str | None:
    return None if once is None or once.startswith(NEXT) else once


def _end(connection: Connection, row: Mapping[Any, Any], state: State, now: float, told: Mapping[str, Any]) -> None:
    values = {"state": state, "ended": now, "lane": None, "worker": None, "stop": False, "once": _kept(row["once"])}
    connection.execute(update(tables.jobs).where(_its.id == row["id"]).values({**values, **told}))
    # Whoever found the lane taken gave up: now the first of them is rung for.
    same = [name for name in kinds.ALL if _lane(name) == _lane(row["kind"])]
    query = (
        select(_its.id)
        .where(_its.state == State.WAITING, _its.due <= now, _its.kind.in_(same))
        .where(_its.tenant == row["tenant"], _its.repository == row["repository"])
        .order_by(_its.due)
        .limit(1)
    )
    for follower in engine.silent(connection, list(connection.execute(query).scalars())):
        engine.ring(connection, follower)
