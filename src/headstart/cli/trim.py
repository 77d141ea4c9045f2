"""``headstart trim``: the guest gives its free blocks back."""

from __future__ import annotations

import argparse
import dataclasses

from headstart import errors, units
from headstart.backup import trim
from headstart.cli import arguments, text
from headstart.cli.session import Session


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "trim", run, "Have the guest give its free blocks back, so that none is stored.")
    parser.add_argument("name", metavar="NAME")


def run(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        by, found = trim.trim(context, given.name)
    rows = [
        (each.point, "-" if each.trimmed is None else units.format_bytes(each.trimmed), each.problem) for each in found
    ]
    values = {"name": given.name, "by": by, "filesystems": [dataclasses.asdict(each) for each in found]}
    session.output.result(values, text.table(("MOUNTED AT", "TRIMMED", ""), rows))
    failed = [each.point for each in found if each.trimmed is None]
    if not found:
        raise errors.Incomplete("The guest tells of no file system that it could trim: nothing was given back.")
    if len(failed) == len(found):
        raise errors.Unsupported("The guest could trim none of its file systems: its disks need 'discard=unmap'.")
    if failed:
        raise errors.Incomplete(f"Trimmed, but for what is mounted at {', '.join(failed)}.", points=failed)
