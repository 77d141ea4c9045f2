"""``headstart status``: how far the next backup is."""

from __future__ import annotations

import argparse

from headstart import units
from headstart.backup import cycle
from headstart.backup.cycle import Status
from headstart.cli import arguments, text
from headstart.cli.session import Session


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "status", run, "Tell how far the next backup is, without asking the VM.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of this VM only")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        names = [given.name] if given.name else [vm.name for vm in context.journal.vms()]
        found = [cycle.status(context, name, units.BLOCK_SIZE) for name in names]
    headings = ("VM", "LAST SNAPSHOT", "ROUNDS", "COPIED AHEAD", "REMAINING", "LAST RUN")
    session.output.result(
        {"vms": [each.json() for each in found]}, text.table(headings, [_row(each) for each in found])
    )


def _row(status: Status) -> tuple[str, ...]:
    return (
        status.vm,
        text.short(status.snapshot) if status.snapshot else "none",
        str(status.rounds),
        units.format_bytes(status.copied_bytes),
        units.format_bytes(status.remaining_bytes),
        _last_run(status),
    )


def _last_run(status: Status) -> str:
    last = status.last_run
    if last is None:
        return "none"
    ended = "did not end" if last["ended"] is None else "failed: " + last["error"] if last["error"] else "done"
    waiting = ", waits to be published" if status.spooled else ""
    return f"{last['verb']} {text.moment(last['begun'])}, {ended}{waiting}"
