"""A lease lives as long as its owner gives signs of life, and holds nobody up for longer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from headstart import errors
from headstart.repository import layout, lease
from headstart.repository.lease import Lease
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.clock import Clock
from tests.kit.stores import FaultyStore
from tests.kit.waiting import wait_until

READER = Lease("ab" * 16, "host", "restore", (Root("cd" * 16, "vda", 4096, bytes(32)),), (bytes(32),))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faulty(clock: Clock) -> FaultyStore:
    return FaultyStore(MemoryStore(clock))


@pytest.fixture
def repo(faulty: FaultyStore) -> Repository:
    return stores.new_repository(faulty)


def begin(repo: Repository, held: Lease, number: int = 0) -> str:
    name = lease.key_of(held.id, number)
    repo.put_object(layout.Kind.LEASE, name, lease.encode(held))
    return name


def test_a_lease_says_who_needs_what(repo: Repository) -> None:
    assert lease.read(repo, begin(repo, READER)) == READER
    assert lease.living(repo) == [READER]


def test_the_dead_are_removed_and_the_living_stay(repo: Repository, clock: Clock) -> None:
    other = dataclasses.replace(READER, id="cd" * 16)
    begin(repo, READER)
    begin(repo, other)
    clock.sleep(lease.DEAD_SECONDS - 1)
    begin(repo, other, 1)
    clock.sleep(2)
    assert lease.living(repo) == [other]
    assert len(lease.names(repo)) == 2
    lease.remove_dead(repo)
    assert lease.living(repo) == [other]
    assert lease.names(repo) == {other.id: [lease.key_of(other.id, 0), lease.key_of(other.id, 1)]}


def test_one_that_ended_just_now_holds_nothing(repo: Repository, faulty: FaultyStore) -> None:
    name = begin(repo, READER)

    def ended(read: Callable[[], object]) -> object:
        faulty.store.delete(name)
        return read()

    faulty.plan("read", ended, name)
    assert lease.living(repo) == []


def test_foreign_files_are_passed_over(repo: Repository) -> None:
    for key in ("leases/readme", "leases/x/0", f"leases/{READER.id}/readme"):
        repo.store.create(key, b"x")
    assert lease.names(repo) == {}


def test_what_is_no_lease_is_damaged(repo: Repository) -> None:
    name = lease.key_of(READER.id, 0)
    for payload in (b"{}", b"[]", b"{", lease.encode(READER).replace(b'"verb"', b'"word"')):
        repo.put_object(layout.Kind.LEASE, name, payload)
        with pytest.raises(errors.Damaged, match="cannot be decoded"):
            lease.read(repo, name)
        repo.store.delete(name)


def test_who_reads_for_long_gives_signs_of_life(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an object of its own: what was written is never changed."""
    monkeypatch.setattr(lease, "DEAD_SECONDS", 0.12)
    with lease.reading(repo, "restore", [], []) as held:
        assert held
        [its] = wait_until(lambda: [each for each in lease.names(repo).values() if len(each) > 2])
        assert its == sorted(its)
    assert lease.names(repo) == {}


def test_a_collector_leaves_one_sign_of_life(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT_SECONDS", 0.01)
    with lease.collecting(repo, "gc"):
        wait_until(lambda: any(int(each[-1][-4:]) > 2 for each in lease.names(repo).values()))
    assert lease.names(repo) == {}


def test_signs_of_life_that_fail_harm_nobody(
    repo: Repository, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DEAD_SECONDS", 0.12)
    with lease.reading(repo, "restore", [], []):
        before = faulty.count("create")
        faulty.plan("create", stores.fail(errors.StoreFailed("away")), layout.LEASES)
        wait_until(lambda: faulty.count("create") > before + 2)
    assert lease.names(repo) == {}


@pytest.mark.parametrize("twice", [False, True])
def test_who_slept_too_long_leaves_the_next_one_alone(repo: Repository, clock: Clock, twice: bool) -> None:
    here, there = (Lease(lease._COLLECTOR, "host", "gc (process 1)", nonce=nonce) for nonce in ("here", "there"))
    slept = lease.Beat(repo, here, lease._take(repo, here), 1e6)
    if twice:
        slept._sign()
    clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)
    if twice:  # and the other has ended, and begun again
        lease._remove(repo, lease.names(repo)[lease._COLLECTOR])
    taken = lease.key_of(lease._COLLECTOR, lease._take(repo, there))
    with pytest.raises(lease.Held, match="asleep"):
        slept.require()
    if not twice:
        slept._sign()
    slept.close()
    assert lease.names(repo) == {lease._COLLECTOR: [taken]}
    assert lease.read(repo, taken) == there


@pytest.mark.parametrize("again", [False, True])
def test_a_sign_whose_answer_was_lost_goes_with_the_others(repo: Repository, faulty: FaultyStore, again: bool) -> None:
    beat = lease.Beat(repo, READER, 0, 1e6)
    begin(repo, READER)
    faulty.plan("create", stores.lose(errors.StoreFailed("away")), layout.LEASES)
    with pytest.raises(errors.StoreFailed):
        beat._sign()
    if again:
        beat._sign()
        beat._sign()
    beat.close()
    assert lease.names(repo) == {}


def test_who_was_overtaken_while_it_hesitated_gives_way(repo: Repository, faulty: FaultyStore, clock: Clock) -> None:
    """Others have removed the dead lease, collected, ended, and begun again from number 0."""
    dead = begin(repo, Lease(lease._COLLECTOR, "here", "gc"), 5)
    clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)

    def overtaken(create: Callable[[], object]) -> object:
        faulty.store.delete(dead)
        begin(repo, Lease(lease._COLLECTOR, "there", "forget"))
        return create()

    faulty.plan("create", overtaken, lease.key_of(lease._COLLECTOR, 6))
    with pytest.raises(lease.Held, match="'headstart forget' of there"), lease.collecting(repo, "gc"):
        pass
    assert lease.names(repo) == {lease._COLLECTOR: [lease.key_of(lease._COLLECTOR, 0)]}


def test_who_could_not_take_it_leaves_that_of_another_one_alone(repo: Repository, faulty: FaultyStore) -> None:
    first = lease.key_of(lease._COLLECTOR, 0)

    def overtaken(create: Callable[[], object]) -> object:
        begin(repo, Lease(lease._COLLECTOR, "there", "forget"))
        raise errors.StoreFailed("away")

    faulty.plan("create", overtaken, first)
    with pytest.raises(errors.StoreFailed, match="away"), lease.collecting(repo, "gc"):
        pass
    assert lease.read(repo, first).host == "there"


def test_a_lease_that_cannot_be_read_holds_all_the_same(repo: Repository) -> None:
    repo.store.create(lease.key_of(lease._COLLECTOR, 0), b"x")
    with pytest.raises(lease.Held, match="an unknown host"), lease.collecting(repo, "gc"):
        pass
