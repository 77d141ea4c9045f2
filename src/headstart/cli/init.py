"""``headstart init``: make a repository."""

from __future__ import annotations

import argparse
import os
import time

from headstart import errors, repository, store
from headstart.cli import arguments, password
from headstart.cli.session import Session
from headstart.repository import protection


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "init", run, "Make a repository in an empty place.")
    parser.add_argument(
        "--no-encryption", action="store_true", help="no password: whoever can read the place can read the backups"
    )
    parser.add_argument(
        "--immutable",
        metavar="DAYS",
        type=_days,
        default=0,
        help="nobody can remove what a snapshot needs for so long; wants a bucket of S3 with object lock",
    )


def _days(given: str) -> int:
    if not given.isascii() or not given.isdecimal() or not 1 <= int(given) <= protection.MAX_DAYS:
        raise errors.Usage(f"--immutable takes a number of days from 1 to {protection.MAX_DAYS}, not {given!r}.")
    return int(given)


def run(session: Session, given: argparse.Namespace) -> None:
    place = store.open_store(session.settings.repository)
    chosen = None if given.no_encryption else password.ask_for_new(os.environ)
    with repository.create(place, chosen, immutable_days=given.immutable, now=time.time()) as made:
        values = {
            "repository": session.settings.repository,
            "id": made.id,
            "encrypted": made.encrypted,
            "block_size": made.block_size,
            "immutable_days": made.immutable_days,
        }
    keep = (
        "Keep the password safe, and a paper key ('headstart key export'): without one of them nothing can be restored."
    )
    session.output.result(
        values, f"Made a repository in {place!r}. {keep if chosen else 'It is not encrypted: anybody can read it.'}"
    )
