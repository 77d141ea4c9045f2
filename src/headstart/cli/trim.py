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
    if found and all(each.trimmed is None for each in found):
        raise errors.Unsupported("The guest could trim none of its file systems: its disks need 'discard=unmap'.")
