"""``headstart find``: files in a snapshot by their names."""

from __future__ import annotations

import argparse
import fnmatch

from headstart import plain
from headstart.cli import arguments, filerow, within
from headstart.cli.session import Session
from headstart.restore.files import guestpath
from headstart.restore.files.filetree import File, Troubles


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "find", run, "Find files in a snapshot.")
    parser.add_argument("path", metavar=within.PATH, type=guestpath.parse, help=within.PATH_HELP)
    parser.add_argument(
        "--name",
        metavar="GLOB",
        action="append",
        default=[],
        help="only what is called so, as '*.conf'; may be repeated: any of them",
    )
    parser.add_argument("-l", "--long", action="store_true", help="with mode, owner, size and time")


def run(session: Session, given: argparse.Namespace) -> None:
    path: guestpath.GuestPath = given.path
    troubles = Troubles()
    with session.repository() as repo, within.opened(session, repo, path.snapshot, "find") as contents:
        tree, top = contents.find(path)
        found = [step.file for step in tree.walk(top, troubles) if not step.leaving and _matches(step.file, given.name)]
        targets = [filerow.target(file) if given.long or session.output.as_json else "" for file in found]
        values = {
            "snapshot": contents.manifest.id,
            "volume": top.system.volume.name,
            "files": [filerow.values(file, target) for file, target in zip(found, targets, strict=True)],
            "left_out": troubles.count,
            "notes": contents.notes,
        }
    if given.long:
        rows = [filerow.row(file, file.path, target) for file, target in zip(found, targets, strict=True)]
        shown = filerow.aligned(rows)
    else:
        shown = "\n".join(plain.line(file.path, max(1, len(file.path))) for file in found)
    session.output.result(values, shown)
    troubles.raise_any()


def _matches(file: File, globs: list[str]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(file.name, glob) for glob in globs)
