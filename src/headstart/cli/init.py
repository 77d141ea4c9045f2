"""``headstart init``: make a repository."""

from __future__ import annotations

import argparse
import os

from headstart import repository, store
from headstart.cli import arguments, password
from headstart.cli.session import Session


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "init", run, "Make a repository in an empty place.")
    parser.add_argument(
        "--no-encryption", action="store_true", help="no password: whoever can read the place can read the backups"
    )


def run(session: Session, given: argparse.Namespace) -> None:
    place = store.open_store(session.settings.repository)
    chosen = None if given.no_encryption else password.ask_for_new(os.environ)
    with repository.create(place, chosen) as made:
        values = {
            "repository": session.settings.repository,
            "id": made.id,
            "encrypted": made.encrypted,
            "block_size": made.block_size,
        }
    keep = "Keep the password safe: without it nothing can be restored."
    session.output.result(
        values, f"Made a repository in {place!r}. {keep if chosen else 'It is not encrypted: anybody can read it.'}"
    )
