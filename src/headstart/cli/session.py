"""What a verb works with: settings, output, and the places that it opens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart import errors, repository, store
from headstart.cli import password
from headstart.cli.output import Output
from headstart.cli.settings import Settings, place_of
from headstart.repository import Repository, census
from headstart.repository.census import Remembered
from headstart.state.database import DATABASE
from headstart.state.journal import Journal

if TYPE_CHECKING:
    from headstart.backup.context import Context


@dataclass(frozen=True, slots=True)
class Session:
    settings: Settings
    output: Output

    @contextlib.contextmanager
    def repository(
        self, *, to_mend: bool = False, structure_is_enough: bool = False, every_key: bool = False
    ) -> Iterator[Repository]:
        """Opens it; asks for the password if one is needed. ``to_mend``: also where its config is damaged;
        ``structure_is_enough``: also with a password that opens no content; ``every_key``: which ones it opens."""
        with repository.open(
            store.open_store(self.settings.repository),
            lambda: password.ask(os.environ),
            to_mend=to_mend,
            structure_is_enough=structure_is_enough,
            every_key=every_key,
        ) as opened:
            opened.holdings.use_cache(self.settings.cache)
            yield opened
            if failure := opened.holdings.cache_failure:
                self.output.note(f"the cache {self.settings.cache} was not used, which cost time and memory: {failure}")

    @contextlib.contextmanager
    def second_repository(self, url: str, which: str = password.FROM, *, to_mend: bool = False) -> Iterator[Repository]:
        """One to read from, or (``password.TO``) to copy into. Its password comes from variables of its own, else it is
        the first one's."""
        place = store.open_store(place_of(url))
        with repository.open(place, lambda: password.ask_for_second(os.environ, which, url), to_mend=to_mend) as opened:
            yield opened

    def remembered(self, repo: Repository) -> Remembered:
        """What this host would miss in the repository, if it has any state at all."""
        if not (self.settings.state / DATABASE).exists():
            return census.NOTHING
        from headstart.backup import remember

        try:
            with self.journal() as journal:
                return remember.of(journal, repo)
        except errors.HeadstartError as error:
            self.output.note(f"what this host remembers was not compared: {error}")
            return census.NOTHING

    def journal(self) -> Journal:
        return Journal.open(self.settings.state)

    @contextlib.contextmanager
    def local(self) -> Iterator[Context]:
        """For what needs the state of this host and its VMs, but no repository."""
        from headstart.backup.context import Context

        with self.journal() as journal:
            yield Context(journal, None, self.settings.scratch)

    @contextlib.contextmanager
    def full(self) -> Iterator[Context]:
        """For rounds and backups."""
        from headstart.backup.context import Context

        with self.repository() as repo, self.journal() as journal, self.output.progress() as report:
            yield Context(journal, repo, self.settings.scratch, report)
