"""Once a day, after a backup, the locks of an immutable repository are extended."""

from __future__ import annotations

import functools

import pytest

from headstart import errors, repository
from headstart.host.locksmith import Locksmith
from headstart.repository import immutable
from headstart.repository.immutable import Extended
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.host import home as homes
from tests.host.home import HOUR, MIDNIGHT, Home
from tests.kit import stores
from tests.kit.clock import Clock
from tests.kit.waiting import wait_until

DAY = 24 * HOUR


@pytest.fixture
def clock() -> Clock:
    return Clock(MIDNIGHT)


@pytest.fixture
def repo(clock: Clock) -> Repository:
    return repository.create(stores.LockingStore(clock), stores.PASSWORD, cost=stores.QUICK, immutable_days=8)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []

    def extend(repo: Repository, now: float) -> Extended:
        made.append(now)
        return Extended()

    monkeypatch.setattr(immutable, "extend", extend)
    return made


def test_once_a_day(repo: Repository, clock: Clock, calls: list[float]) -> None:
    smith = Locksmith(clock)
    for _ in range(48):
        smith.backed_up(repo)
        assert smith.join(5)
        clock.now += HOUR
    assert calls == [MIDNIGHT, MIDNIGHT + DAY]
    clock.now -= 30 * DAY  # put back
    smith.backed_up(repo)
    assert smith.join(5)
    assert len(calls) == 3


def test_what_fails_is_tried_after_the_next_backup(
    repo: Repository, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(repo: Repository, now: float) -> Extended:
        raise errors.StoreFailed("503")

    monkeypatch.setattr(immutable, "extend", fail)
    smith = Locksmith(clock)
    for _ in range(2):
        smith.backed_up(repo)
        assert smith.join(5)
    assert caplog.text.count("verb=lock") == 2


def test_other_repositories_are_left_alone(clock: Clock, calls: list[float]) -> None:
    smith = Locksmith(clock)
    smith.backed_up(repository.create(MemoryStore(), stores.PASSWORD, cost=stores.QUICK))
    assert smith.join(5)
    assert calls == []


home = homes.fresh


def test_the_daemon_does_it(home: Home) -> None:
    store = stores.LockingStore(lambda: home.now)
    repository.create(store, stores.PASSWORD, cost=stores.QUICK, immutable_days=8).close()
    home.store = store
    vm = home.add("web")
    home.vault.locksmith = Locksmith(lambda: home.now)
    with home.serving():
        home.now = MIDNIGHT + 2 * HOUR
        wait_until(lambda: len(home.snapshots()) == 1)
        first = [name for name, _ in store.list("packs/")]
        for day in range(1, 8):
            vm.write("a", day)
            home.now = MIDNIGHT + day * DAY + 2 * HOUR
            wait_until(functools.partial(lambda count: len(home.snapshots()) == count, day + 1))
        # What was written before the first backup and never since.
        wait_until(lambda: any(store.until[name] >= home.now + 8 * DAY for name in first))
