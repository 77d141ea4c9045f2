"""What a verb works with: settings, output, and the places that it opens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from headstart import repository, store
from headstart.backup.context import Context
from headstart.cli import password
from headstart.cli.output import Output
from headstart.cli.settings import Settings
from headstart.repository import Repository
from headstart.state.journal import Journal


@dataclass(frozen=True, slots=True)
class Session:
    settings: Settings
    output: Output

    @contextlib.contextmanager
    def repository(self) -> Iterator[Repository]:
        """Opens it; asks for the password if one is needed."""
        place = store.open_store(self.settings.repository)
        with repository.open(place, lambda: password.ask(os.environ)) as opened:
            yield opened

    def journal(self) -> Journal:
        return Journal.open(self.settings.state)

    @contextlib.contextmanager
    def local(self) -> Iterator[Context]:
        """For what needs the state of this host and its VMs, but no repository."""
        with self.journal() as journal:
            yield Context(journal, None, self.settings.scratch)

    @contextlib.contextmanager
    def full(self) -> Iterator[Context]:
        """For rounds and backups."""
        with self.repository() as repo, self.journal() as journal, self.output.progress() as report:
            yield Context(journal, repo, self.settings.scratch, report)
