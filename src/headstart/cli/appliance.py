"""``headstart appliance``: read and store for hypervisor hosts, on a machine that is none."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from headstart import errors, logentries
from headstart.appliance import keys, messages
from headstart.appliance.service import SESSIONS, Service
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.restore.serving.places import Tcp
from headstart.state import appliances


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "appliance", run, "Read and store for the hypervisor hosts of this repository, until it is interrupted."
    )
    parser.add_argument(
        "--listen",
        metavar="HOST[:PORT]",
        default=f"0.0.0.0:{messages.PORT}",
        help="where hosts come to (default: %(default)s)",
    )
    parser.add_argument("--keys", metavar="DIR", type=Path, help="its keys, which 'headstart appliance keys' makes")
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=SESSIONS, help="for so many rounds at a time (default: %(default)s)"
    )
    group = parser.add_subparsers(metavar="COMMAND", required=False)
    making = arguments.add_verb(group, "keys", run_keys, "Make keys for an appliance and the hosts that use it.")
    making.add_argument("folder", metavar="DIR", type=Path)
    trusting = arguments.add_verb(
        group, "trust", run_trust, "Use an appliance again that had delivered false blocks, and was not used since."
    )
    trusting.add_argument("address", metavar="HOST:PORT")


def run(session: Session, given: argparse.Namespace) -> None:
    if given.keys is None:
        raise errors.Usage("Say with --keys where its keys are. 'headstart appliance keys DIR' makes some.")
    if given.rounds < 1:
        raise errors.Usage("--rounds takes a number from 1.")
    place = Tcp.parse(given.listen, port=messages.PORT)
    _log_rounds()
    with session.repository() as repo:
        service = Service(repo, given.keys, place.host, place.port, given.rounds)
        session.output.result(
            {"repository": repo.id, "listen": place.host, "port": service.port, "rounds": given.rounds},
            f"Reading for the hosts of repository {repo.id[:8]}, at {place.host}, port {service.port}, until this is"
            " interrupted (Ctrl-C).",
        )
        try:
            service.serve()
        except KeyboardInterrupt:  # that is how it is meant to end
            service.stop()


def _log_rounds() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logentries.Entries("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    threading.excepthook = _log_bug


def _log_bug(happened: threading.ExceptHookArgs) -> None:
    logging.getLogger("headstart.appliance").error("A bug: a round is given up.", exc_info=happened.exc_value)


def run_keys(session: Session, given: argparse.Namespace) -> None:
    keys.make(given.folder)
    theirs, ours = (given.folder / side for side in (keys.APPLIANCE, keys.HOST))
    session.output.result(
        {"appliance": str(theirs), "host": str(ours)},
        f"Made keys. {theirs} goes onto the appliance, which is started by: headstart appliance --keys DIR. {ours} goes"
        f" onto the hosts, which know it as: tcp:HOST:{messages.PORT},keys=DIR. Both are for root alone.",
    )


def run_trust(session: Session, given: argparse.Namespace) -> None:
    with session.journal() as journal:
        found = appliances.trust(journal, given.address)
        known = given.address in appliances.names(journal).values()
    if not known:
        raise errors.NotFound(f"This host has never worked with an appliance at {given.address}: give HOST:PORT.")
    said = f"The appliance {given.address} is used again." if found else f"{given.address} was trusted already."
    session.output.result({"appliance": given.address, "distrusted": asdict(found) if found else None}, said)
