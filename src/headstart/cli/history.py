"""``headstart history``: what has been with a VM."""

from __future__ import annotations

import argparse

from headstart.cli import arguments
from headstart.cli.session import Session


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "history", run, "Tell, or draw, what has been with a VM.")
    parser.add_argument("name", metavar="NAME")


def run(session: Session, given: argparse.Namespace) -> None:
    raise NotImplementedError
