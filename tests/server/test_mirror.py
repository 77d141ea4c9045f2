"""A copy of a repository while garbage is collected in it: whatever was copied is whole, and stays so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC

import pytest

from headstart import repository, units
from headstart.repository import Repository, collect, forget, layout, verify
from headstart.server.work.copy import Mirror
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

SIZE = 16 * BLOCK


def nobody_ends_it(what: str = "", done: int = 0, total: int = 0) -> None:
    """A beat."""


class Source(MemoryStore):
    """``within``: what happens in the middle of a listing of packs, once."""

    within: Callable[[], None] | None = None

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        there = list(super().list(prefix))
        if self.within is not None and prefix == layout.PACKS:
            happens, self.within = self.within, None
            happens()
            still = {key for key, _ in super().list(prefix)}
            there = [each for each in there if each[0] in still]  # what is new comes before the place of the list
        return iter(there)


@dataclass
class Site:
    source: Source
    target: MemoryStore
    now: list[float]

    def copy(self) -> Mirror:
        made = Mirror(self.source, self.target, nobody_ends_it, everything=False)
        made.run()
        return made

    def collect(self) -> None:
        """What was condemned a day ago goes; what is needed of it is in a new pack."""
        self.now[0] += 25 * 3600
        with self.open(self.source) as repo:
            collect.collect(repo, collect.Order())

    def collect_all(self) -> None:
        for _ in range(2):
            self.collect()

    def open(self, store: MemoryStore) -> Repository:
        return repository.open(store, lambda: stores.PASSWORD)

    def require_whole(self) -> None:
        with self.open(self.target) as repo:
            found = verify.verify_all(repo, lambda _done, _total: None)
            assert [each.message for each in found.findings] == []
            assert found.snapshots == 1


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """Of two snapshots one is forgotten, and the other needs a part of a pack of both."""
    monkeypatch.setattr(layout, "PACK_SIZE", 256 * units.KIB)
    now = [1_700_000_000.0]
    made = Site(Source(lambda: now[0]), MemoryStore(lambda: now[0]), now)
    stores.new_repository(made.source).close()
    with made.open(made.source) as repo:
        gone = samples.add_snapshot(repo, {"a": Image(SIZE, {n: noise(n) for n in (1, 2, 3)})}, "x")
    with made.open(made.source) as repo:
        samples.add_snapshot(repo, {"a": Image(SIZE, {0: noise(2)})}, "y")
    made.copy()
    with made.open(made.source) as repo:
        forget.forget(repo, forget.Order(now=2e3, zone=UTC, ids=[gone.id]))
    return made


def test_what_was_copied_stays_although_the_source_has_another_pack_for_it(site: Site) -> None:
    copied = site.copy()
    site.collect_all()
    copied.prune()
    site.require_whole()
    assert site.copy().prune()
    site.require_whole()


def test_a_list_that_a_collector_made_incomplete_is_made_again(site: Site) -> None:
    site.source.within = site.collect_all
    site.copy().prune()
    site.require_whole()
