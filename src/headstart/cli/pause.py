"""``headstart pause``, ``resume`` and ``cancel``: what the daemon does with a VM."""

from __future__ import annotations

import argparse

from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.host import control


def add(verbs: arguments.Verbs) -> None:
    for name, run, summary in (
        ("pause", run_pause, "The daemon leaves a VM alone: no rounds, no backups, until it is resumed."),
        ("resume", run_resume, "The daemon protects a paused VM again; a backup that was missed is made up for."),
        ("cancel", run_cancel, "The daemon ends the round or the backup of a VM that is under way."),
    ):
        arguments.add_verb(verbs, name, run, summary).add_argument("name", metavar="NAME")


def run_pause(session: Session, given: argparse.Namespace) -> None:
    done = control.ask(session.settings.state, {"do": "pause", "vm": given.name})
    session.output.result(done, f"{given.name} is left alone. 'headstart resume {given.name}' goes on.")


def run_resume(session: Session, given: argparse.Namespace) -> None:
    done = control.ask(session.settings.state, {"do": "resume", "vm": given.name})
    session.output.result(done, f"{given.name} is protected again.")


def run_cancel(session: Session, given: argparse.Namespace) -> None:
    done = control.ask(session.settings.state, {"do": "cancel", "vm": given.name})
    said = f"What was under way with {given.name} is being ended." if done["cancelled"] else "Nothing is under way."
    session.output.result(done, said)
