"""``headstart precopy``: one round now."""

from __future__ import annotations

import argparse
from dataclasses import replace

from headstart import units
from headstart.appliance import addresses
from headstart.backup import cycle
from headstart.backup.transport import Transport
from headstart.cli import arguments
from headstart.cli.session import Session


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "precopy", run, "Copy changed blocks ahead of the next backup.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--transport",
        choices=[each.value for each in Transport],
        default="auto",
        help="who reads the blocks: the agent in the guest, an appliance, or this host (auto: the best there is)",
    )
    parser.add_argument(
        "--appliance",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="an appliance that may read: tcp:HOST:PORT[,monitor=PATH],keys=DIR; may be repeated",
    )


def run(session: Session, given: argparse.Namespace) -> None:
    appliances = tuple(addresses.parse(each).text for each in given.appliance)
    with session.full() as context:
        done = cycle.precopy_round(replace(context, appliances=appliances), given.name, Transport(given.transport))
    size = units.format_bytes
    session.output.result(
        done.json(),
        f"Round {done.round} of {done.vm}: {size(done.identified_bytes)} changed, {size(done.copied_bytes)} copied, "
        f"{size(done.remaining_bytes)} remain, {units.format_seconds(done.seconds)}.",
    )
    for note in done.notes:
        session.output.note(note)
