"""``headstart export`` and ``headstart import``: one snapshot in one file, to be carried to another place."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from headstart import errors, plain, repository, units
from headstart.cli import arguments, password, text
from headstart.cli.progress import Report
from headstart.cli.session import Session
from headstart.repository import Repository, snapshot
from headstart.repository.copying import Copied, Copying
from headstart.repository.manifest import Manifest
from headstart.store.archive import SUFFIX, ArchiveStore, ArchiveWriter

_STDOUT = "-"
_PART = ".part"


def add(verbs: arguments.Verbs) -> None:
    exporting = arguments.add_verb(
        verbs, "export", run_export, "Write a snapshot into one file, under a password of its own."
    )
    exporting.add_argument("snapshot", metavar="SNAPSHOT", help="an id, the beginning of one, or NAME@latest")
    exporting.add_argument("file", metavar="FILE", help=f"a new file, such as web{SUFFIX}; - is standard output")
    importing = arguments.add_verb(verbs, "import", run_import, "Take the snapshots of an exported file over.")
    importing.add_argument("file", metavar="FILE", type=Path)


def run_export(session: Session, given: argparse.Namespace) -> None:
    begun = time.monotonic()
    with session.repository() as source, session.output.progress() as progress:
        found = snapshot.resolve(source, given.snapshot)
        secret = password.ask_for_export(os.environ)
        with _opened(given.file) as file:
            writer = ArchiveWriter(file, "standard output" if given.file == _STDOUT else given.file)
            with repository.create(writer, secret, block_size=source.block_size, now=time.time()) as target:
                done = _copied(source, target, found, progress)
            writer.finish()
    values = {
        "snapshot": found.id,
        "vm": found.vm,
        "file": given.file,
        "bytes": writer.written,
        "seconds": time.monotonic() - begun,
    }
    told = f"Exported snapshot {text.short(done.id)} of {plain.line(found.vm)}: {units.format_bytes(writer.written)}."
    if given.file == _STDOUT:
        session.output.note(told)
    else:
        session.output.result(values, told)


def run_import(session: Session, given: argparse.Namespace) -> None:
    if not given.file.is_file():
        raise errors.NotFound(f"There is no file {given.file}. Name one that 'headstart export' made.")
    with (
        session.second_repository(str(given.file)) as source,
        session.repository() as target,
        session.output.progress() as progress,
    ):
        assert isinstance(source.store, ArchiveStore), "a file is one"
        listing = snapshot.all_manifests(source)
        if listing.damaged:
            raise listing.damaged[0]
        done = [_copied(source, target, found, progress) for found in listing.manifests]
    lines = [
        plain.line(f"{text.short(each.id)}  {each.vm}  {'was there' if each.there else 'imported'}") for each in done
    ]
    session.output.result({"snapshots": [dataclasses.asdict(each) for each in done]}, "\n".join(lines))


def _copied(source: Repository, target: Repository, found: Manifest, progress: Report) -> Copied:
    def report(looked: int, total: int) -> None:
        progress(f"copying {text.short(found.id)} of {found.vm}", looked, total)

    return Copying(source, target, socket.gethostname(), time.time, report).copy(found)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """Standard output, or a new file that gets its name when it is whole and durable."""
    if name == _STDOUT:
        if sys.stdout.isatty():
            raise errors.Usage("An export is no text for a terminal: name a file, or send it through a pipe.")
        # Not the buffer, which would be written once more where that has failed.
        with os.fdopen(os.dup(1), "wb", buffering=0) as stdout:
            yield cast(BinaryIO, stdout)
        return
    place = Path(name)
    part = place.with_name(place.name + _PART)
    if os.path.lexists(place):
        raise errors.TargetRefused(f"{place} exists and is not overwritten. Name another file.", target=name)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise errors.TargetRefused(
            f"{part} exists: another export is writing it, or was killed. If none is running, remove it.", target=name
        ) from None
    except OSError as error:
        raise errors.TargetRefused(
            f"{part} cannot be made: {error.strerror}. Name another file.", target=name
        ) from error
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, part)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, place)
        except FileExistsError:
            raise errors.TargetRefused(f"{place} exists and is not overwritten. Name another file.") from None
        except OSError:
            part.rename(place)


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink()
