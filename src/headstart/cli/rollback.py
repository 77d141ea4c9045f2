"""``headstart rollback``: a VM's own disks become what they were."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

from headstart import errors
from headstart.backup.context import Context
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import lease, snapshot
from headstart.repository.manifest import Manifest
from headstart.restore import rollback
from headstart.restore.rollback import Order


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "rollback", run, "Shut a VM down, make its disks what they were in a snapshot, and start it again."
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="of this VM: an id, the beginning of one, or NAME@latest")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--no-safety", action="store_true", help="lose what is there now: without this it is backed up before"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help=f"take the VM's power if the guest does not shut down within {rollback.SHUTDOWN_SECONDS:.0f} s",
    )


def run(session: Session, given: argparse.Namespace) -> None:
    order = Order(safety=not given.no_safety, force=given.force)
    with session.repository() as repo, session.journal() as journal:
        journal.vm(given.name)
        found = snapshot.resolve(repo, given.snapshot)
        with lease.reading_snapshot(repo, "rollback", found):
            if not given.yes:
                _ask(given.name, found, order)
            with session.output.progress() as progress:
                context = Context(journal, repo, session.settings.scratch, progress)
                done = rollback.rollback(context, given.name, found, order)
    session.output.result(dataclasses.asdict(done), "\n".join(rollback.told(done)))
    for note in done.notes:
        session.output.note(note)
    if done.not_started:
        raise errors.Incomplete(
            f"{given.name} is rolled back, and does not run again: {done.not_started.removesuffix('.')}.",
            vm=given.name,
            snapshot=found.id,
        )


def _ask(name: str, found: Manifest, order: Order) -> None:
    """Raises ``Usage`` for anything but a yes."""
    if not sys.stdin.isatty():
        raise errors.Usage("A rollback is not done without a yes, and there is no terminal to ask at: use --yes.")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.created))
    kept = "is kept as a snapshot" if order.safety else "is LOST"
    forced = "; if it does not, its power is taken" if order.force else "; if it does not, nothing is changed"
    seconds = f"{rollback.SHUTDOWN_SECONDS:.0f} s at most{forced}"
    sys.stderr.write(
        f"{name} is shut down ({seconds}), and its disks become what they were at {when}"
        f" (snapshot {text.short(found.id)}). What was written since {kept}.\nGo on? Type yes: "
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        raise errors.Usage("Nothing was done.")
