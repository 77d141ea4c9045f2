"""Backups and rounds that hosts have made; from the reports of backups, the catalogue of snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from headstart.server import events, schedule, snapshots, tables
from headstart.server.call import Call
from headstart.server.roles import Right

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Run:
    """As in the host's journal; ``number`` is its own there. ``report`` is that of ``headstart backup --json``, or
    holds an ``error``."""

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
            return None
        return str(found.get("message", found)) if isinstance(found, Mapping) else str(found)


def take(connection: Connection, call: Call, reported: Sequence[Run]) -> int:
    """Those that are not known yet; the highest number that is known now. A host that did not hear our answer says it
    again, and nothing is counted twice."""
    call.who.require(Right.REPORT)
    its = tables.runs.c
    numbers = [run.number for run in reported]
    known = set(
        connection.execute(select(its.number).where(its.host == call.who.host, its.number.in_(numbers))).scalars()
    )
    for run in reported:
        if run.number not in known:
            _take(connection, call, run)
    return max(numbers, default=0)


def _take(connection: Connection, call: Call, run: Run) -> None:
    connection.execute(
        insert(tables.runs).values(
            host=call.who.host,
            number=run.number,
            tenant=call.who.tenant,
            vm=run.vm,
            verb=run.verb,
            begun=run.begun,
            ended=run.ended,
            error=run.error,
            report=dict(run.report),
        )
    )
    if run.verb == "backup":
        _note_backup(connection, call, run)
    events.note(connection, call, f"{run.verb}.{'failed' if run.error else 'done'}", run.vm, _facts(run))


def _note_backup(connection: Connection, call: Call, run: Run) -> None:
    its = tables.vms.c
    change = update(tables.vms).where(its.host == call.who.host, its.name == run.vm)
    if run.error is not None:
        connection.execute(change.values(last_failure=run.ended or run.begun, last_error=run.error))
        return
    found = snapshots.of_report(run.report)
    if found is None:
        return
    snapshots.add(connection, call, found)
    if call.who.tenant is not None and call.who.repository is not None:
        schedule.after_snapshot(connection, call.who.tenant, call.who.repository, found.vm, call.now)
    # One that comes late tells of the past.
    newer = change.where((its.last_success.is_(None)) | (its.last_success < found.created))
    values = {"last_success": found.created, "window_seconds": found.window_seconds}
    connection.execute(newer.values(residue_bytes=found.residue_bytes, last_error=None, **values))


def _facts(run: Run) -> dict[str, Any]:
    told = {"run": run.number, "begun": run.begun, "ended": run.ended}
    if run.error is not None:
        return {**told, "error": run.error}
    kept = ("snapshot", "window_seconds", "copied_bytes", "seconds")
    return {**told, **{name: run.report[name] for name in kept if name in run.report}}


def of_vm(connection: Connection, tenant: str, vm: str, since: float, limit: int = _PAGE) -> list[dict[str, Any]]:
    """Newest first."""
    its = tables.runs.c
    query = (
        select(tables.runs)
        .where(its.tenant == tenant, its.vm == vm, its.begun >= since)
        .order_by(its.begun.desc())
        .limit(min(limit, _PAGE))
    )
    return [dict(row) for row in connection.execute(query).mappings()]
