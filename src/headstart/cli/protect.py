"""``headstart protect`` and ``headstart unprotect``: what no rule forgets."""

from __future__ import annotations

import argparse

from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.repository import label, snapshot


def add(verbs: arguments.Verbs) -> None:
    for name, run, summary in (
        ("protect", _protect, "Keep snapshots, whatever rules say."),
        ("unprotect", _unprotect, "Let rules decide on snapshots again."),
    ):
        parser = arguments.add_verb(verbs, name, run, summary)
        parser.add_argument("snapshots", nargs="+", metavar="SNAPSHOT")


def _protect(session: Session, given: argparse.Namespace) -> None:
    _set(session, given, protected=True)


def _unprotect(session: Session, given: argparse.Namespace) -> None:
    _set(session, given, protected=False)


def _set(session: Session, given: argparse.Namespace, *, protected: bool) -> None:
    with session.repository(structure_is_enough=True) as repo:
        ids = [snapshot.resolve(repo, name).id for name in given.snapshots]
        for each in ids:
            (label.protect if protected else label.unprotect)(repo, each)
    said = "No rule forgets" if protected else "Rules decide again on"
    session.output.result({"snapshots": ids, "protected": protected}, f"{said} {', '.join(ids)}.")
