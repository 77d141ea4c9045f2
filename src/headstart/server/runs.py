"""Backups and rounds that hosts have made; from the reports of backups, the catalogue of snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, case, delete, insert, select, true, update

from headstart.server import events, schedule, snapshots, tables
from headstart.server.call import Call
from headstart.server.events import Event
from headstart.server.roles import Right
from headstart.server.snapshots import Entry

#: As long as hosts keep them.
KEPT_SECONDS = 90 * 86400.0
_PAGE = 500
#: Of a picture: a week with one every five minutes.
ROUNDS = 2016
#: Rounds that went well are too many to be events.
_QUIET = ("precopy",)


@dataclass(frozen=True, slots=True)
class Run:
    """As in the host's journal; ``number`` is its own there. ``report`` is that of ``headstart backup --json``, or
    holds an ``error``. ``ended`` None: it was cut off, as by a power cut."""

    number: int
    vm: str
    verb: str
    begun: float
    ended: float | None
    report: Mapping[str, Any]

    @property
    def error(self) -> str | None:
        found = self.report.get("error")
        if found is None:
            return "It was cut off." if self.ended is None else None
        return str(found.get("message", found)) if isinstance(found, Mapping) else str(found)


def take(connection: Connection, call: Call, reported: Sequence[Run]) -> int:
    """Those that are not known yet; the highest number that is known now. A host that did not hear our answer says it
    again, and nothing is counted twice. One whose state was lost, or put back, counts from there anew: another run of
    the same number takes the place of the one before."""
    call.who.require(Right.REPORT)
    its = tables.runs.c
    numbers = [run.number for run in reported]
    query = select(its.number, its.begun).where(its.host == call.who.host, its.number.in_(numbers))
    known = {row.number: row.begun for row in connection.execute(query)}
    new = list({run.number: run for run in reported if known.get(run.number) != run.begun}.values())
    gone = [run.number for run in new if run.number in known]
    if gone:
        connection.execute(delete(tables.runs).where(its.host == call.who.host, its.number.in_(gone)))
    if new:
        connection.execute(insert(tables.runs), [_row(call, run) for run in new])
    for run in new:
        _note_backup(connection, call, run)
    events.note_all(connection, call, [_event(run) for run in new if run.error or run.verb not in _QUIET])
    return max(numbers, default=0)


def _row(call: Call, run: Run) -> dict[str, Any]:
    return {
        "host": call.who.host,
        "number": run.number,
        "tenant": call.who.tenant,
        "vm": run.vm,
        "verb": run.verb,
        "begun": run.begun,
        "ended": run.ended,
        "error": run.error,
        "report": dict(run.report),
    }


def _note_backup(connection: Connection, call: Call, run: Run) -> None:
    if run.verb not in ("backup", "publish"):
        return
    # A clock that is ahead must not hide what comes after it.
    moment = min(run.ended or run.begun, call.now)
    if run.error is None:
        take_snapshots(connection, call, [run.report])
        if run.report.get("snapshot"):
            _clear_failure(connection, call, run.vm, moment)
        return
    its = tables.vms.c
    # One that comes late tells of the past.
    newer = its.last_failure.is_(None) | (its.last_failure <= moment) | (its.last_failure > call.now)
    over = (its.last_success > moment) & (its.last_success <= call.now)
    values = {"last_failure": moment, "last_error": case((over, None), else_=run.error)}
    known = case((its.last_success <= call.now, its.last_success))
    connection.execute(_mine(call, run.vm).where(newer).values(**values, last_success=known))


def take_snapshots(connection: Connection, call: Call, reports: Iterable[Mapping[str, Any]]) -> None:
    """What a host has published; the same may be told again. What cannot be understood is passed over: a host may be
    of another version."""
    call.who.require(Right.REPORT)
    for found in filter(None, map(snapshots.of_report, reports)):
        is_new = snapshots.add(connection, call, found)
        if found.created <= call.now:
            _note_success(connection, call, found, found.created)
        elif is_new:
            # By a clock that is ahead, so it is of now at the latest; but not when it is told again.
            _note_success(connection, call, found, call.now)
        if call.who.tenant is not None and call.who.repository is not None:
            schedule.after_snapshot(connection, call.who.tenant, call.who.repository, found.vm, call.now)


def _note_success(connection: Connection, call: Call, found: Entry, moment: float) -> None:
    its = tables.vms.c
    newer = its.last_success.is_(None) | (its.last_success < moment) | (its.last_success > call.now)
    values = {"last_success": moment, "window_seconds": found.window_seconds, "residue_bytes": found.residue_bytes}
    connection.execute(_mine(call, found.vm).where(newer).values(**values))
    _clear_failure(connection, call, found.vm, moment)


def _clear_failure(connection: Connection, call: Call, vm: str, moment: float) -> None:
    """What failed until then does not count any longer: a backup was published."""
    its = tables.vms.c
    over = its.last_failure.is_(None) | (its.last_failure <= moment) | (its.last_failure > call.now)
    connection.execute(_mine(call, vm).where(over).values(last_error=None))


def _mine(call: Call, vm: str) -> Update:
    return update(tables.vms).where(tables.vms.c.host == call.who.host, tables.vms.c.name == vm)


def _event(run: Run) -> Event:
    return Event(f"{run.verb}.{'failed' if run.error else 'done'}", run.vm, _facts(run))


def _facts(run: Run) -> dict[str, Any]:
    told = {"run": run.number, "begun": run.begun, "ended": run.ended}
    if run.error is not None:
        return {**told, "error": run.error}
    kept = ("snapshot", "window_seconds", "copied_bytes", "seconds")
    return {**told, **{name: run.report[name] for name in kept if name in run.report}}


def of_vm(connection: Connection, vm: Mapping[str, Any], since: float, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Newest first. ``vm`` as ``vms`` has it: another host's of the same name is another one."""
    return _newest(connection, vm, since, true(), min(limit, _PAGE))


def rounds_and_others(
    connection: Connection, vm: Mapping[str, Any], since: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each newest first: of many rounds, not all; but they are in the way of no backup."""
    is_round = tables.runs.c.verb.in_(_QUIET)
    return _newest(connection, vm, since, is_round, ROUNDS), _newest(connection, vm, since, ~is_round, _PAGE)


def _newest(
    connection: Connection, vm: Mapping[str, Any], since: float, which: ColumnElement[bool], limit: int
) -> list[dict[str, Any]]:
    its = tables.runs.c
    mine = (its.tenant == vm["tenant"], its.vm == vm["name"], its.host == vm["host"])
    query = select(tables.runs).where(*mine, its.begun >= since, which).order_by(its.begun.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def forget_old(connection: Connection, now: float) -> None:
    connection.execute(delete(tables.runs).where(tables.runs.c.begun < now - KEPT_SECONDS))
