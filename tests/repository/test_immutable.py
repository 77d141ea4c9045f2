"""Immutable repositories: what is locked until when. The locks are in memory, so that days pass at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.repository import draft, hoard, immutable, verify
from headstart.repository.immutable import Extended
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.clock import Clock
from tests.kit.stores import LockingStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

DAY = 86400.0
DAYS = 8
#: Of eight days: a quarter.
SPARE = 2 * DAY


class Shelf:
    """An immutable repository, and its clock."""

    def __init__(self) -> None:
        self.clock = Clock(1_800_000_000.0)
        self.store = LockingStore(self.clock)
        self.repo = repository.create(self.store, stores.PASSWORD, cost=stores.QUICK, immutable_days=DAYS)

    def add(self, contents: dict[int, bytes], vm: str = "web") -> Repository:
        samples.add_snapshot(self.repo, {"vda": Image(100 * BLOCK, contents)}, vm, self.clock.now)
        return self.repo

    def extend(self) -> Extended:
        return immutable.extend(self.repo, self.clock.now)

    def pack_of(self, content: bytes) -> str:
        found = self.repo.index.find(self.repo.chunk_id(content))
        assert found is not None
        return f"packs/{found.pack_id.hex()}"

    def left(self, name: str) -> float:
        """Days for which nobody can remove it yet."""
        return (immutable.locked_until(self.repo, name) - self.clock.now) / DAY


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_all_but_drafts_is_locked(shelf: Shelf) -> None:
    shelf.add({1: noise(1)})
    begun = draft.begin(shelf.repo, "web", "host", shelf.clock.now)
    names = [name for name, _ in shelf.store.list("")]
    assert {name.split("/")[0] for name in names} == {
        *("config", "keys", "packs", "indexes", "snapshots", "twins", "drafts")
    }
    for name in names:
        assert shelf.left(name) == (0 if name.startswith("drafts/") else DAYS + 2) or name.startswith("drafts/")
    draft.drop(shelf.repo, begun.id)


def test_it_is_known_when_it_is_opened(shelf: Shelf) -> None:
    shelf.store._protection = None
    with stores.reopened(shelf.repo) as opened:
        assert opened.immutable_days == DAYS
        samples.add_snapshot(opened, {"vda": Image(100 * BLOCK, {1: noise(1)})})
    assert all(shelf.left(name) == DAYS + 2 for name, _ in shelf.store.list("packs/"))


def test_what_a_new_snapshot_shares_is_locked_longer(shelf: Shelf) -> None:
    shelf.add({1: noise(1), 2: noise(2)})
    shelf.add({5: noise(5)})
    old = shelf.pack_of(noise(1))
    shelf.clock.now += 7 * DAY
    shelf.add({1: noise(1), 3: noise(3)})
    assert shelf.left(old) == 3
    shelf.repo.immutable_days = 0  # when it was opened; its admin has raised it since
    done = shelf.extend()
    assert shelf.left(old) == DAYS + 2
    assert shelf.left("config") == shelf.left(shelf.repo.key_names()[0]) == DAYS + 2
    assert shelf.left(shelf.pack_of(noise(5))) == 3, "no new snapshot needs it"
    assert 0 < done.extended == done.asked < done.needed


def test_a_damaged_cache_hides_nothing_from_it(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hoard, "KEPT_OBJECTS", 1)
    shelf.add({1: noise(1)})
    shelf.add({5: noise(5)})
    old = shelf.pack_of(noise(1))
    shelf.clock.now += 7 * DAY
    shelf.add({1: noise(1), 3: noise(3)})
    with stores.reopened(shelf.repo, tmp_path) as daemon:
        assert samples.known(daemon)
        hidden = [daemon.chunk_id(noise(1)), daemon.chunk_id(b"-m 256")]  # all of that pack
        samples.hide(tmp_path, daemon, *hidden)
        assert daemon.missing(hidden) == hidden
        immutable.extend(daemon, shelf.clock.now)
    assert shelf.left(old) == DAYS + 2


def test_a_lock_has_a_margin(shelf: Shelf) -> None:
    """What is needed day by day is not locked anew day by day."""
    extended = []
    for _ in range(20):
        shelf.add({1: noise(1)})
        extended.append(shelf.extend().extended)
        assert all(shelf.left(name) >= DAYS for name in (shelf.pack_of(noise(1)), "config"))
        shelf.clock.now += DAY
    assert 0 < sum(1 for count in extended if count) <= 20 / 2


def test_every_snapshot_keeps_its_promise(shelf: Shelf) -> None:
    """For 30 days one that shares with some before it; of all of the last days everything is locked long enough."""
    made: list[tuple[float, list[str]]] = []
    for day in range(30):
        contents = {number: noise(number) for number in (0, 1 + day % 3, 100 + day)}
        shelf.add(dict(enumerate(contents.values())))
        made.append((shelf.clock.now, [shelf.pack_of(data) for data in contents.values()]))
        shelf.extend()
        for created, packs in made:
            for name in packs:
                if created + DAYS * DAY > shelf.clock.now:
                    assert shelf.store.until[name] >= created + DAYS * DAY
        shelf.clock.now += DAY


def test_a_clock_that_was_wrong_locks_nothing_for_years(shelf: Shelf) -> None:
    content = {1: noise(1)}
    samples.add_snapshot(shelf.repo, {"vda": Image(100 * BLOCK, content)}, "web", shelf.clock.now + 3000 * DAY)
    shelf.clock.now += 3 * DAY
    assert shelf.extend().extended
    assert max(shelf.left(name) for name, _ in shelf.store.list("")) == DAYS + 2


def test_old_snapshots_are_let_go(shelf: Shelf) -> None:
    shelf.add({1: noise(1)})
    shelf.clock.now += 30 * DAY
    assert shelf.extend() == Extended()
    assert immutable.locked_until(shelf.repo, shelf.pack_of(noise(1))) < shelf.clock.now


def test_a_damaged_tree_keeps_nothing_else_from_being_locked(shelf: Shelf) -> None:
    made = samples.add_snapshot(shelf.repo, {"vda": Image(100 * BLOCK, {1: noise(1)})}, created=shelf.clock.now)
    location = shelf.repo.index.find(made.disks[0].root or b"")
    assert location is not None
    name = f"packs/{location.pack_id.hex()}"
    data = samples.flipped(shelf.store.read(name), [location.frame.offset])
    shelf.store.until.clear()
    samples.rewrite(shelf.repo, name, data)
    shelf.clock.now += 7 * DAY
    shelf.add({9: noise(9)}, vm="db")
    shelf.extend()
    assert shelf.left("config") == DAYS + 2


def test_a_failure_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.add({1: noise(1)})
    shelf.clock.now += 7 * DAY
    shelf.add({1: noise(1)})

    def fail(key: str, until: float) -> None:
        raise errors.StoreFailed("503")

    monkeypatch.setattr(shelf.store, "extend", fail)
    with pytest.raises(errors.StoreFailed):
        shelf.extend()


def test_of_other_repositories_nothing(repo: Repository) -> None:
    samples.add_snapshot(repo, {"vda": Image(100 * BLOCK, {1: noise(1)})})
    assert immutable.extend(repo, 2000.0) == Extended()
    assert immutable.locked_until(repo, "config") == 0.0


def test_a_copy_in_a_directory_can_be_opened(shelf: Shelf, repo: Repository) -> None:
    """Of an immutable repository: nothing is locked there, and everything can be read."""
    shelf.add({1: noise(1)})
    copy = MemoryStore()
    for name, _ in shelf.store.list(""):
        copy.create(name, shelf.store.read(name))
    with repository.open(copy, lambda: stores.PASSWORD) as opened:
        assert verify.verify_all(opened, lambda done, total: None).findings == ()
        assert immutable.extend(opened, shelf.clock.now) == Extended()
