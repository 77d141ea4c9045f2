"""``headstart mount``: the files of a snapshot as a file system."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

from headstart import errors, plain, units
from headstart.cli import arguments, within
from headstart.cli.session import Session
from headstart.restore.files import guestpath, mounting
from headstart.restore.files.contents import READABLE, Contents
from headstart.restore.files.filetree import FileTree
from headstart.restore.files.mounting import Opener


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "mount", run, "Mount the files of a snapshot, read-only, until Ctrl-C.")
    parser.add_argument(
        "snapshot",
        metavar="SNAPSHOT",
        help="an id, the beginning of one, or NAME@latest: each of its volumes in a directory of its own, or the only "
        "one; SNAPSHOT:/ as the guest sees its files; SNAPSHOT:VOLUME: a volume",
    )
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="an empty one")


def run(session: Session, given: argparse.Namespace) -> None:
    begun = time.monotonic()
    path = guestpath.parse(given.snapshot if ":" in given.snapshot else f"{given.snapshot}:")
    with session.repository() as repo, within.opened(session, repo, path.snapshot, "mount") as contents:
        openers = _openers(contents, path)

        def ready() -> None:
            seconds = time.monotonic() - begun
            values = {
                "snapshot": contents.manifest.id,
                "directory": str(given.directory),
                "volumes": [name for name in openers if name],
                "seconds": seconds,
            }
            took = units.format_seconds(seconds)
            said = f"Mounted at {given.directory} in {took}. Ctrl-C or 'umount {given.directory}' ends it."
            session.output.result(values, said)

        mounting.mount(openers, given.directory, f"headstart:{contents.manifest.id}", ready)


def _openers(contents: Contents, path: guestpath.GuestPath) -> Mapping[str, Opener]:
    if path.volume or path.path:
        tree, top = contents.find(path)
        if top.node.kind != "directory":
            raise errors.Usage(f"{plain.line(top.path)} is no directory: copy it with 'headstart cp'.")
        return {"": lambda: tree.below(top)}
    readable = [each for each in contents.volumes if each.content in READABLE and not each.problem]
    if not readable:
        contents.tree()  # says why
    if len(readable) == 1:
        only = FileTree(contents.system(readable[0]))
        return {"": lambda: only}
    return {each.name: (lambda each=each: FileTree(contents.system(each))) for each in readable}  # type: ignore[misc]
