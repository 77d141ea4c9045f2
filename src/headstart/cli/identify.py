"""``headstart identify``: where something in the guest lies on the VM's disks."""

from __future__ import annotations

import argparse

from headstart import plain, units
from headstart.backup import inspection
from headstart.cli import arguments, text
from headstart.cli.session import Session


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "identify", run, "Tell which disks and extents carry a volume of the guest's.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--volume",
        metavar="PATH",
        required=True,
        help="a path (the file system that holds it), a device or a volume's name, as the guest knows it",
    )


def run(session: Session, given: argparse.Namespace) -> None:
    with session.local() as context:
        found = inspection.locate(context, given.name, given.volume)
    rows = [
        (disk["name"], disk["device"], str(start), str(length))
        for disk in found.disks
        for start, length in disk["extents"]
    ]
    size = units.format_bytes(found.bytes)
    session.output.result(
        found.json(),
        f"{plain.line(found.volume)} is {found.kind} {found.device}, {size}:\n"
        + text.table(("DISK", "IN THE GUEST", "START", "BYTES"), rows),
    )
    for note in found.notes:
        session.output.note(note)
