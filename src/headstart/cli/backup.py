"""``headstart backup``: complete a backup now."""

from __future__ import annotations

import argparse
import dataclasses

from headstart import errors, units
from headstart.backup import cycle, hooks, plan, report
from headstart.backup.complete import Options
from headstart.backup.context import Context
from headstart.backup.report import BackupReport, DiskReport
from headstart.cli import arguments, text, volumelines
from headstart.cli.session import Session
from headstart.host import control, requests
from headstart.repository import immutable
from headstart.store import address


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "backup", run, "Back up a VM as of now; only what changed is read.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--plain", action="store_true", help="use nothing that was copied ahead")
    parser.add_argument(
        "--audit",
        metavar="N|all|none",
        type=_audit,
        default=plan.AUDIT_BLOCKS,
        help="compare this many random blocks with the point in time (default: %(default)s)",
    )
    parser.add_argument("--no-freeze", action="store_true", help="do not freeze the guest's file systems")
    parser.add_argument(
        "--hook",
        metavar="EVENT=COMMAND",
        action="append",
        default=[],
        type=hooks.parse,
        help=f"run a command at {', '.join(hooks.EVENTS)}; may be repeated",
    )


def _audit(given: str) -> int | None:
    """None: every block."""
    if given == "all":
        return None
    if given == "none":
        return 0
    if not given.isascii() or not given.isdecimal():
        raise errors.Usage(f"--audit takes a number of blocks, all, or none, not {given!r}.")
    return int(given)


def run(session: Session, given: argparse.Namespace) -> None:
    options = Options(given.plain, given.audit, not given.no_freeze, tuple(given.hook))
    unlocked = None
    done = _by_daemon(session, given.name, options)
    if done is None:
        with session.full() as context:
            done = cycle.backup(context, given.name, options)
            unlocked = extend_locks(context)
    session.output.result(done.json(), _text(done))
    for note in done.notes:
        session.output.note(note)
    if done.failures:
        raise errors.Incomplete(f"Snapshot {done.snapshot} is published, but: {'; '.join(done.failures)}")
    if unlocked is not None:
        raise errors.Incomplete(
            f"Snapshot {done.snapshot} is published, but what it shares with older ones could not be locked for longer:"
            f" {unlocked}"
        )


def extend_locks(context: Context) -> errors.HeadstartError | None:
    """As the daemon does once a day. What kept it from being done, if something did."""
    try:
        immutable.extend(context.repository, context.clock())
    except errors.HeadstartError as error:
        return error
    return None


def _by_daemon(session: Session, name: str, options: Options) -> BackupReport | None:
    """None: no daemon protects this VM. It has the VM's monitor, and the repository open."""
    state = session.settings.state
    try:
        if name not in control.ask(state, {"do": "status"})["vms"]:
            return None
    except control.Absent:
        return None
    url = session.settings.url
    place = None if url is None else address.canonical(url)
    request = {"do": "backup", "vm": name, "options": requests.options_json(options), "repository": place}
    with session.output.progress() as progress:
        return report.backup_of(control.ask(state, request, progress))


def _text(done: BackupReport) -> str:
    seconds = units.format_seconds
    headings = ("DISK", "SIZE", "CHANGED", "AHEAD", "RESIDUE", "STORED", "")
    return "\n".join(
        [
            f"Snapshot {done.snapshot} of {done.vm}, {done.consistency} consistent, in {seconds(done.seconds)}: "
            f"window {seconds(done.window_seconds)}, freeze {seconds(done.freeze_seconds)}, "
            f"pause {seconds(done.pause_seconds)}",
            text.table(headings, [_row(disk) for disk in done.disks]),
            *volumelines.lines(map(dataclasses.asdict, done.volumes), "residue_bytes", "RESIDUE"),
        ]
    )


def _row(disk: DiskReport) -> tuple[str, ...]:
    sizes = (disk.size, disk.changed_bytes, disk.precopied_bytes, disk.residue_bytes, disk.stored_bytes)
    said = [f"read whole: {disk.reason}"] if disk.compared else []
    said += [f"without {units.format_bytes(disk.excluded_bytes)}"] if disk.excluded_bytes else []
    return (disk.name, *map(units.format_bytes, sizes), ", ".join(said))
