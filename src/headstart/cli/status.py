"""``headstart status``: how far the next backup is."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from headstart import plain, units
from headstart.backup.status import status_of
from headstart.cli import arguments, text, volumelines
from headstart.cli.session import Session
from headstart.host import control
from headstart.load import governor
from headstart.state.journal import Journal
from headstart.store import membership

#: Seconds between two looks of ``--watch``.
_WATCH_SECONDS = 1.0
_HEADINGS = ("VM", "PROTECTED UNTIL", "REMAINING", "COPIED AHEAD", "NEXT BACKUP", "WINDOW", "STATE")


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "status", run, "Tell how far the next backup is, without asking the VM.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of this VM only")
    parser.add_argument("--watch", action="store_true", help="again every second, until it is interrupted")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.journal() as journal:
        while True:
            live, server = _live(session, given.name)
            names = [given.name] if given.name else [vm.name for vm in journal.vms()]
            found = [_values(journal, name, live.get(name)) for name in names]
            inside = _volumes(found[0]) if given.name else []
            table = text.table(_HEADINGS, [_row(each) for each in found])
            shown = "\n".join([table, *inside, *_warnings(found), *_server(server)])
            is_read = session.output.result({"vms": found, "server": server}, shown, anew=given.watch)
            if not (given.watch and is_read):
                return
            time.sleep(_WATCH_SECONDS)


def _live(session: Session, name: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """What the daemon tells, by VM, and of the server that this host has joined; without one, what is kept."""
    try:
        found = control.ask(session.settings.state, {"do": "status", "vm": name})
    except control.Absent:
        joined = membership.load(session.settings.joined)
        if joined is None:
            return {}, None
        words = {"url": joined.url, "tenant": joined.tenant, "repository": joined.address}
        return {}, {**words, "state": "nobody asks it", "reason": "'headstart run' does, and does not run"}
    return found["vms"], found.get("server")


def _server(told: Mapping[str, Any] | None) -> list[str]:
    if told is None:
        return []
    line = f"Server {told['url']}, tenant {told['tenant']}: {told['state']}"
    line += f" since {text.moment(told['since'])}" if told.get("since") else ""
    lines = [line + (f": {told['reason']}" if told["reason"] else "")]
    if told.get("policies_refused"):
        lines.append(f"Its policies cannot be used: {told['policies_refused']}")
    if told.get("overridden"):
        lines.append(f"This host's own configuration comes before the server's: {', '.join(told['overridden'])}")
    lines += [f"{vm} is not taken in there: {why}" for vm, why in told.get("refused_vms", {}).items()]
    return ["", *map(plain.joined, lines)]


def _values(journal: Journal, name: str, live: Mapping[str, Any] | None) -> dict[str, Any]:
    return dataclasses.asdict(status_of(journal, name, units.BLOCK_SIZE)) | {"live": live}


def _volumes(status: Mapping[str, Any]) -> list[str]:
    """As they lay at the last backup."""
    return volumelines.lines(status["volumes"], "remaining_bytes", "REMAINING")


def _row(status: Mapping[str, Any]) -> tuple[str, ...]:
    live = status["live"]
    until = status["protected_until"]
    return (
        status["vm"],
        text.moment(until) if until else "never" if status["snapshot"] is None else "?",
        units.format_bytes(status["remaining_bytes"]),
        units.format_bytes(status["copied_bytes"]),
        text.moment(live["due"]) if live and live["due"] else "-",
        _window(live),
        _state(live) if live else _last_run(status),
    )


def _window(live: Mapping[str, Any] | None) -> str:
    if not live or not live["forecast"]:
        return "-"
    found = live["forecast"]["window_seconds"]
    return f"{units.format_seconds(found['likely'])} (up to {units.format_seconds(found['high'])})"


def _state(live: Mapping[str, Any]) -> str:
    pace = f" at {units.format_bytes(round(live['rate']))}/s" if 0 < live["rate"] < governor.FULL_RATE else ""
    doing = live["doing"]
    done = f", {units.format_bytes(doing['done'])} of {units.format_bytes(doing['total'])}" if _counts(doing) else ""
    return f"{live['state']}{pace}{done}: {live['reason']}"


def _counts(doing: Mapping[str, Any] | None) -> bool:
    return doing is not None and doing["total"] > 0


def _last_run(status: Mapping[str, Any]) -> str:
    last = status["last_run"]
    if last is None:
        return "no run yet"
    ended = "did not end" if last["ended"] is None else "failed: " + last["error"] if last["error"] else "done"
    waiting = ", waits to be published" if status["spooled"] else ""
    return f"{last['verb']} {text.moment(last['begun'])}, {ended}{waiting}"


def _warnings(found: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in found:
        live, distrust = each["live"], each["agent_distrusted"]
        if distrust:
            since = text.moment(distrust["since"])
            lines.append(
                f"{each['vm']}: its agent is not trusted since {since}, because {distrust['reason']}:"
                f" 'headstart agent trust {each['vm']}' uses it again"
            )
        if each["half_rolled_back"]:
            lines.append(
                f"{each['vm']}: half rolled back: 'headstart rollback {each['vm']} {each['half_rolled_back']}' ends it"
            )
        if live:
            lines += [f"{each['vm']}: {warning}" for warning in (live["forecast"] or {}).get("warnings", ())]
            if live["missing_sensors"]:
                lines.append(f"{each['vm']}: no sensor for {', '.join(live['missing_sensors'])}")
    return [plain.joined(line) for line in lines]
