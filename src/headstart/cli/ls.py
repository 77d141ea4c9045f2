"""``headstart ls``: the files in a snapshot, and its volumes."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from headstart import plain, units
from headstart.cli import arguments, filerow, text, within
from headstart.cli.session import Session
from headstart.restore.files import guestpath
from headstart.restore.files.contents import Contents, Seen
from headstart.restore.files.filetree import Troubles


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "ls", run, "List the files in a snapshot; with SNAPSHOT: alone, its volumes.")
    parser.add_argument("path", metavar=within.PATH, type=guestpath.parse, help=within.PATH_HELP)
    parser.add_argument("-l", "--long", action="store_true", help="with mode, owner, size and time")


def run(session: Session, given: argparse.Namespace) -> None:
    path: guestpath.GuestPath = given.path
    with session.repository() as repo, within.opened(session, repo, path.snapshot, "ls") as contents:
        if path.volume or path.path:
            _files(session, contents, path, long=given.long)
        else:
            _volumes(session, contents)


def _files(session: Session, contents: Contents, path: guestpath.GuestPath, *, long: bool) -> None:
    troubles = Troubles()
    tree, top = contents.find(path)
    files = [top]
    if top.node.kind == "directory":
        files = tree.files_in(top)
        for told in tree.unlisted(top):
            troubles.add(top.path, told)
    targets = [filerow.target(file) for file in files]
    values = {
        "snapshot": contents.manifest.id,
        "volume": top.system.volume.name,
        "path": top.path,
        "files": [filerow.values(file, target) for file, target in zip(files, targets, strict=True)],
        "notes": contents.notes,
    }
    if long:
        rows = [filerow.row(file, file.name or "/", target) for file, target in zip(files, targets, strict=True)]
        shown = filerow.aligned(rows)
    else:
        shown = "\n".join(plain.line(file.name or "/") for file in files)
    session.output.result(values, shown)
    troubles.raise_any()


def _volumes(session: Session, contents: Contents) -> None:
    seen = contents.seen()
    rows = [_row(each) for each in seen]
    values = {
        "snapshot": contents.manifest.id,
        "volumes": [_values(each) for each in seen],
        "notes": contents.notes,
    }
    session.output.result(values, text.table(("VOLUME", "CONTENT", "SIZE", "LABEL", "MOUNTED AT"), rows))


def _row(seen: Seen) -> tuple[str, ...]:
    volume = seen.volume
    label = volume.label or volume.partition_label
    return (volume.name, volume.content or "-", units.format_bytes(volume.size), label or "-", seen.mounted or "-")


def _values(seen: Seen) -> dict[str, Any]:
    told = dataclasses.asdict(seen.volume)
    told.pop("segments")
    return told | {"mounted": seen.mounted}
