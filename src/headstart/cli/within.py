"""A snapshot whose files a verb reads: opened, with a lease, and with what the user should know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from headstart.cli.session import Session
from headstart.repository import Repository, lease, snapshot
from headstart.repository.manifest import Manifest
from headstart.restore.files.contents import Contents

#: What names a file, for help.
PATH = "SNAPSHOT:/PATH"
PATH_HELP = (
    "SNAPSHOT: an id, the beginning of one, or NAME@latest. SNAPSHOT:VOLUME:/PATH is in a volume as 'headstart ls "
    "SNAPSHOT:' names it"
)


@contextlib.contextmanager
def opened(session: Session, repo: Repository, name: str, verb: str) -> Iterator[Contents]:
    """The snapshot of that name. Notes are told at the end."""
    with held(session, repo, snapshot.resolve(repo, name), verb) as contents:
        yield contents


@contextlib.contextmanager
def held(session: Session, repo: Repository, manifest: Manifest, verb: str) -> Iterator[Contents]:
    with lease.reading_snapshot(repo, verb, manifest) as is_held, Contents(repo, manifest) as contents:
        try:
            yield contents
        finally:
            for note in contents.notes:
                session.output.note(note)
    if not is_held:
        session.output.note(
            "the repository cannot be written to: had the snapshot been forgotten meanwhile, its data would have been "
            "kept for a day only"
        )
