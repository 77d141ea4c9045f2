"""``headstart restore``: disks from a snapshot."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from headstart import errors, plain, units
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.repository import lease, snapshot
from headstart.restore import order, restoration, volumes


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "restore", run, "Write the disks of a snapshot into a directory.")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="an id, the beginning of one, or NAME@latest")
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="made if it is not there")
    parser.add_argument(
        "--disk",
        metavar="DISK[=TARGET]",
        action="append",
        default=[],
        type=order.parse_wish,
        help="only this disk, and to this new file or this block device; may be repeated",
    )
    parser.add_argument(
        "--volume",
        metavar="VOLUME[=TARGET]",
        action="append",
        default=[],
        type=volumes.parse_wish,
        help="only this volume, by its mount point, name, LABEL= or UUID=: to a raw file, or this block device",
    )
    parser.add_argument(
        "--format",
        choices=order.FORMATS,
        help="of the files; if not given, what the name of a TARGET ends in, else qcow2; vmdk and vhdx need qemu-utils",
    )
    parser.add_argument(
        "--lost-as-zeroes",
        action="store_true",
        help="restore also disks of which parts are lost, with zeroes in their place",
    )


def run(session: Session, given: argparse.Namespace) -> None:
    ordered = order.Order(given.directory, tuple(given.disk), given.format, given.lost_as_zeroes)
    if given.volume and (given.disk or given.lost_as_zeroes or given.format not in (None, "raw")):
        raise errors.Usage("--volume restores raw files: leave --disk, --format and --lost-as-zeroes out.")
    with session.repository() as repo, session.output.progress() as progress:
        found = snapshot.resolve(repo, given.snapshot)
        with lease.reading_snapshot(repo, "restore", found) as held:
            if given.volume:
                done = volumes.restore(repo, found, given.directory, tuple(given.volume), progress)
            else:
                done = restoration.restore(repo, found, ordered, progress)
    lines = [
        f"{disk.path}  {disk.format}, {units.format_bytes(disk.size)}, {units.format_bytes(disk.data_bytes)} of it data"
        for disk in done.disks
    ]
    lines += map(str, done.files)
    lines.append(f"Restored snapshot {done.snapshot} of {plain.line(done.vm)} in {units.format_seconds(done.seconds)}.")
    session.output.result(dataclasses.asdict(done), "\n".join(lines))
    for note in done.notes:
        session.output.note(note)
    if not held:
        session.output.note(
            "the repository cannot be written to: had the snapshot been forgotten meanwhile, its data would have been "
            "kept for a day only"
        )
