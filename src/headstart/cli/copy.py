"""``headstart copy``: snapshots into another repository."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import socket
import time
from collections.abc import Iterator

from headstart import errors, plain, units
from headstart.cli import arguments, password, text
from headstart.cli.session import Session
from headstart.repository import Repository, snapshot
from headstart.repository.copying import Copied, Copying
from headstart.repository.manifest import Manifest


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "copy", run, "Copy snapshots into another repository: what is missing there, under its own key."
    )
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT", help="only these; else all of the repository")
    parser.add_argument("--to", metavar="URL", required=True, help="the repository to copy into")
    parser.add_argument("--from", metavar="URL", dest="source", help="copy from this one instead of --repository")


def run(session: Session, given: argparse.Namespace) -> None:
    begun = time.monotonic()
    done: list[Copied] = []
    with (
        _source(session, given) as source,
        session.second_repository(given.to, password.TO) as target,
        session.output.progress() as progress,
    ):
        chosen, failed = _chosen(source, given.snapshots)
        current = ""

        def report(looked: int, total: int) -> None:
            progress(f"copying {current}", looked, total)

        copying = Copying(source, target, socket.gethostname(), time.time, report)
        for manifest in chosen:
            current = f"{text.short(manifest.id)} of {manifest.vm}"
            try:
                done.append(copying.copy(manifest))
            except errors.Damaged as error:
                failed.append(f"{manifest.id}: {error}")
    values = {
        "snapshots": [dataclasses.asdict(each) for each in done],
        "failed": failed,
        "read_bytes": sum(each.read_bytes for each in done),
        "stored_bytes": sum(each.stored_bytes for each in done),
        "seconds": time.monotonic() - begun,
    }
    session.output.result(values, "\n".join(_lines(done)))
    if failed:
        raise errors.Incomplete(
            f"Not copied, because damaged: {' '.join(failed)} All others are. 'headstart repair' may heal them.",
            snapshots=failed,
        )


@contextlib.contextmanager
def _source(session: Session, given: argparse.Namespace) -> Iterator[Repository]:
    opened = session.repository() if given.source is None else session.second_repository(given.source)
    with opened as source:
        yield source


def _chosen(source: Repository, names: list[str]) -> tuple[list[Manifest], list[str]]:
    """Oldest first; and what is to be said of those that cannot be read."""
    if not names:
        listing = snapshot.all_manifests(source)
        return list(listing.manifests), list(map(str, listing.damaged))
    found = {each.id: each for each in (snapshot.resolve(source, name) for name in names)}
    return sorted(found.values(), key=lambda each: (each.created, each.id)), []


def _lines(done: list[Copied]) -> Iterator[str]:
    for each in done:
        grew = f"{units.format_bytes(each.read_bytes)} read, {units.format_bytes(each.stored_bytes)} stored"
        yield plain.line(f"{text.short(each.id)}  {each.vm}  {'was there' if each.there else grew}")
    fresh = sum(not each.there for each in done)
    yield f"Copied {fresh} snapshots, {len(done) - fresh} were there."
