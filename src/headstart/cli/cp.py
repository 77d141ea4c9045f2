"""``headstart cp``: files out of a snapshot."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headstart import errors, units
from headstart.cli import arguments, streams, within
from headstart.cli.progress import Report
from headstart.cli.session import Session
from headstart.restore.files import extraction, guestpath
from headstart.restore.files.archive import Archive
from headstart.restore.files.contents import Contents
from headstart.restore.files.extraction import Copied
from headstart.restore.files.filetree import File, FileTree, Troubles

#: As a target: a tar stream on stdout.
_STDOUT = "-"

Take = Callable[[FileTree, File, str, extraction.Progress], None]


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "cp", run, "Copy files and directories out of a snapshot.")
    parser.add_argument("paths", metavar=within.PATH, nargs="+", type=guestpath.parse, help=within.PATH_HELP)
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a directory to copy into, a new name for what is copied, or - for a tar stream",
    )
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what a link named here leads to")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there already")


def run(session: Session, given: argparse.Namespace) -> None:
    if given.target == _STDOUT:
        _to_stdout(session, given)
    else:
        _to_directory(session, given)


def _to_directory(session: Session, given: argparse.Namespace) -> None:
    begun = time.monotonic()
    copied = Copied()
    folder, renamed = _where(Path(given.target), len(given.paths))

    def take(tree: FileTree, top: File, name: str, progress: extraction.Progress) -> None:
        extraction.copy(tree, top, folder, renamed or name, copied, progress, force=given.force)

    _each(session, given, take)
    seconds = time.monotonic() - begun
    values = {
        "target": str(folder / renamed if renamed else folder),
        "files": copied.files,
        "directories": copied.directories,
        "others": copied.others,
        "data_bytes": copied.data_bytes,
        "left_out": copied.troubles.count,
        "seconds": seconds,
        "notes": copied.notes(),
    }
    session.output.result(values, f"Copied {_told(copied)} in {units.format_seconds(seconds)}.")
    for note in copied.notes():
        session.output.note(note)
    copied.troubles.raise_any()


def _to_stdout(session: Session, given: argparse.Namespace) -> None:
    if session.output.as_json or sys.stdout.isatty():
        raise errors.Usage(
            "A tar archive on stdout leaves no room for JSON: leave out --json."
            if session.output.as_json
            else "A tar archive is not for a terminal: pipe it into a program, as tar, or redirect it into a file."
        )
    copied = Copied()
    archive = Archive(sys.stdout.buffer, copied)
    try:
        _each(session, given, archive.add)
        archive.close()
    except OSError as error:
        streams.silence(sys.stdout)
        raise errors.HeadstartError(f"The archive could not be written: {error.strerror}.") from error
    for note in copied.notes():
        session.output.note(note)
    copied.troubles.raise_any()


def _each(session: Session, given: argparse.Namespace, take: Take) -> None:
    """All that was named, snapshot by snapshot."""
    with session.repository() as repo, session.output.progress() as report:
        for snapshot in dict.fromkeys(path.snapshot for path in given.paths):
            with within.opened(session, repo, snapshot, "cp") as contents:
                for path in given.paths:
                    if path.snapshot == snapshot:
                        tree, top = contents.find(path, follow=given.follow_link)
                        take(tree, top, _name(contents, top), _progress(report, tree, top))


def _where(target: Path, count: int) -> tuple[Path, str]:
    """The directory to copy into, and the new name (empty: what it is called)."""
    if target.is_dir():
        return target, ""
    if count > 1:
        raise errors.Usage(f"{target} is no directory, which the target of several files has to be.")
    if not target.parent.is_dir():
        raise errors.TargetRefused(f"There is no directory {target.parent} to copy into: make it.", target=str(target))
    return target.parent, target.name


def _name(contents: Contents, top: File) -> str:
    """What a copy is called; a root has no name of its own."""
    return top.name or contents.manifest.vm.replace("/", "_").lstrip(".") or "root"


def _progress(report: Report, tree: FileTree, top: File) -> extraction.Progress:
    """All files are counted first, so that there is an end to be seen."""
    total = sum(step.file.node.size for step in tree.walk(top, Troubles()) if step.file.node.kind == "file")
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        report("copying", done, max(total, done))

    return progress


def _told(copied: Copied) -> str:
    """``3 files, 1 directory, 4.0 KiB of data``."""
    counts = {"file": copied.files, "director": copied.directories, "other": copied.others}
    ends = {"file": ("", "s"), "director": ("y", "ies"), "other": ("", "s")}
    told = [f"{count} {word}{ends[word][count != 1]}" for word, count in counts.items() if count or word == "file"]
    return f"{', '.join(told)}, {units.format_bytes(copied.data_bytes)} of data"
