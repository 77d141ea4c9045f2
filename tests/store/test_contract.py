"""What every store must keep, over every store there is."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from headstart.store import contract, open_store
from headstart.store.contract import Exists, Missing, Protection, Store
from headstart.store.local import LocalStore
from headstart.store.memory import MemoryStore
from headstart.store.retrying import RetryingStore
from tests.kit.server import Server, Tenant
from tests.kit.stores import FaultyStore
from tests.kit.weed import Weed

#: Of tests in buckets: each makes its store in a place that nobody has used.
_places = itertools.count()


MAKERS: dict[str, Callable[[pytest.FixtureRequest], Store]] = {
    "local": lambda request: LocalStore(request.getfixturevalue("tmp_path") / "repository"),
    "memory": lambda request: MemoryStore(),
    "wrapped": lambda request: FaultyStore(MemoryStore()),
    "retrying": lambda request: RetryingStore(MemoryStore()),
    "s3": lambda request: _in_bucket(request, "bucket"),
    "s3 with locks": lambda request: _locking(_in_bucket(request, "locking_bucket")),
    "server": lambda request: _at_server(request),
}


@pytest.fixture(params=MAKERS)
def store(request: pytest.FixtureRequest) -> Store:
    return MAKERS[request.param](request)


def test_it_says_at_which_host_it_is(request: pytest.FixtureRequest, store: Store) -> None:
    """Which decides whose network is looked at."""
    is_far = request.node.callspec.params["store"] in ("s3", "s3 with locks", "server")
    assert store.host in (("127.0.0.1", "localhost") if is_far else ("",))


def _in_bucket(request: pytest.FixtureRequest, name: str) -> Store:
    """In a place that no other test has used."""
    weed: Weed = request.getfixturevalue("weed")
    patched: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for variable, value in weed.environment.items():
        patched.setenv(variable, value)
    return open_store(f"s3://{request.getfixturevalue(name)}/contract/{next(_places)}")


def _at_server(request: pytest.FixtureRequest) -> Store:
    """In a repository that no other test has used, as an admin's program."""
    tenant: Tenant = request.getfixturevalue("tenant_of_any_objects")
    patched: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    name = f"contract{next(_places)}"
    tenant.repository(name)
    identity = tenant.program("admin").client.identity
    patched.setenv("HEADSTART_TOKEN", identity.token)
    patched.setenv("HEADSTART_FINGERPRINT", identity.fingerprint)
    return open_store(f"{identity.url}/{name}")


@pytest.fixture(scope="module")
def tenant_of_any_objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """Of a server that looks at no object's kind."""
    with Server(tmp_path_factory.mktemp("server"), program="tests.kit.unchecked") as running:
        yield running.tenant("anybody")


def _locking(store: Store) -> Store:
    locks = store.locks()
    assert locks is not None
    locks.protect(Protection(1))
    return store


def test_reads_what_was_created(store: Store) -> None:
    store.create("packs/one", b"content")
    assert store.read("packs/one") == b"content"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_keeps_a_copy_of_any_buffer(store: Store, kind: Callable[[bytearray], contract.Data]) -> None:
    buffer = bytearray(b"before")
    store.create("one", kind(buffer))
    buffer[:] = b"after!"
    assert store.read("one") == b"before"


def test_an_empty_object(store: Store) -> None:
    store.create("empty", b"")
    assert store.read("empty") == b""
    assert dict(store.list("")) == {"empty": 0}


def test_a_large_object(store: Store) -> None:
    data = bytes(range(256)) * (3 << 12)
    store.create("large", memoryview(data))
    assert store.read("large") == data


def test_an_object_is_never_overwritten(store: Store) -> None:
    store.create("one", b"first")
    with pytest.raises(Exists) as caught:
        store.create("one", b"second")
    assert caught.value.facts["object"] == "one"
    assert store.read("one") == b"first"


def test_says_what_is_missing(store: Store) -> None:
    with pytest.raises(Missing) as caught:
        store.read("packs/none")
    assert caught.value.facts["object"] == "packs/none"
    with pytest.raises(Missing):
        store.read_range("packs/none", 0, 1)


def test_nothing_is_below_an_object(store: Store) -> None:
    store.create("one", b"x")
    with pytest.raises(Missing):
        store.read("one/two")
    store.delete("one/two")
    assert list(store.list("one/")) == []


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 4, b"0123"), (3, 4, b"3456"), (8, 4, b"89"), (10, 4, b""), (99, 1, b""), (0, 0, b""), (0, 99, b"0123456789")],
)
def test_ranges_are_read_as_far_as_there_is_data(store: Store, offset: int, length: int, expected: bytes) -> None:
    store.create("one", b"0123456789")
    assert store.read_range("one", offset, length) == expected


def test_lists_by_prefix_with_sizes(store: Store) -> None:
    for key, size in {"config": 1, "packs/ab": 2, "packs/ac": 3, "packs-of/ab": 4, "drafts/a/1": 5}.items():
        store.create(key, bytes(size))
    assert dict(store.list("packs/")) == {"packs/ab": 2, "packs/ac": 3}
    assert dict(store.list("packs/ab")) == {"packs/ab": 2}
    assert dict(store.list("packs")) == {"packs/ab": 2, "packs/ac": 3, "packs-of/ab": 4}
    assert dict(store.list("drafts/a")) == {"drafts/a/1": 5}
    assert dict(store.list("nothing/")) == {}
    assert len(dict(store.list(""))) == 5


def test_lists_nothing_before_the_first_object(store: Store) -> None:
    assert list(store.list("")) == []


def test_deleting_twice_is_deleting_once(store: Store) -> None:
    store.create("drafts/a/1", b"x")
    store.create("drafts/a/2", b"x")
    store.delete("drafts/a/1")
    store.delete("drafts/a/1")
    assert dict(store.list("")) == {"drafts/a/2": 1}
    store.delete("drafts/a/2")
    store.create("drafts/a/1", b"again")
    assert store.read("drafts/a/1") == b"again"


def test_tells_the_age_of_objects_by_its_own_clock(store: Store) -> None:
    before = store.clock()
    store.create("packs/one", b"x")
    store.create("drafts/a/1", b"xyz")
    after = store.clock()
    assert {key for key, _, _ in store.modified("packs/")} == {"packs/one"}
    found = list(store.modified(""))
    assert {key: size for key, size, _ in found} == {"packs/one": 1, "drafts/a/1": 3}
    assert all(before - 1 <= created <= after + 1 for _, _, created in found)
    assert list(store.modified("nothing/")) == []


def test_a_clock_goes(store: Store) -> None:
    first = store.clock()
    time.sleep(1.1)
    assert 0 < store.clock() - first < 60
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/absolute",
        "a//b",
        "a/",
        "../up",
        "a/../b",
        ".hidden",
        "a/.tmp",
        "sp ace",
        "nul\0",
        "ü",
        "a\\b",
        "a" * 200,
    ],
)
def test_refuses_what_is_no_key(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        store.create(key, b"")
    with pytest.raises(ValueError, match="not a key"):
        store.read(key)
    with pytest.raises(ValueError, match="not a key"):
        store.delete(key)


@pytest.mark.parametrize("key", ["a", "a.b", "A-Z_0.9", "a/b/c/d", "-", "x" * 128])
def test_takes_odd_keys(store: Store, key: str) -> None:
    store.create(key, b"x")
    assert dict(store.list(key)) == {key: 1}


def test_of_racing_creators_one_wins(request: pytest.FixtureRequest, store: Store) -> None:
    # SeaweedFS takes seconds for each.
    racers, races = 8, 1 if request.node.callspec.params["store"].startswith("s3") else 20
    barrier = threading.Barrier(racers)

    def create(racer: int) -> list[int]:
        first = []
        for race in range(races):
            barrier.wait()
            try:
                store.create(f"races/{race}/prize", bytes([racer]) * 1000)
                first.append(race)
            except Exists:
                pass
        return first

    with ThreadPoolExecutor(racers) as threads:
        won = list(threads.map(create, range(racers)))
    assert sorted(race for each in won for race in each) == list(range(races))
    for racer, each in enumerate(won):
        assert all(store.read(f"races/{race}/prize") == bytes([racer]) * 1000 for race in each)


def test_readers_see_whole_objects_or_none(store: Store) -> None:
    done = threading.Event()

    def watch() -> set[int]:
        seen = set()
        while not done.is_set():
            for key, size in store.list("packs/"):
                seen |= {size, len(store.read(key))}
        return seen

    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        for number in range(50):
            store.create(f"packs/{number}", bytes(100_000))
        done.set()
        assert watching.result() <= {100_000}
