"""The index with a cache: the same answers as without, whatever happens to the cache and to the store meanwhile."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import errors, repository
from headstart.repository import hoard, layout, listing, pack, seal, segment, verify
from headstart.repository.keys import Secrets
from headstart.repository.known import Known
from headstart.repository.link import Link
from headstart.repository.loss import Loss
from headstart.repository.packtable import Moved, PackEntries
from headstart.repository.repo import Repository
from headstart.repository.shelf import Shelf
from headstart.repository.stack import Stack
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.listed import IDS, entries
from tests.repository.samples import noise

SECRETS = Secrets.generate()


def moved(number: int, ids: list[bytes]) -> PackEntries:
    """Its frames were sealed in two other packs."""
    found = entries(number, ids)
    frames = range(len(found.counts))
    origins = Moved((b"a" * 16, b"b" * 16), array("H", [each % 2 for each in frames]), array("I", frames))
    return replace(found, moved=origins)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.lists(IDS, max_size=9), st.sampled_from(["", "spill", "join", "reopen"])), max_size=9),
    st.lists(IDS, max_size=3),
)
def test_parts_are_what_one_table_is(steps: list[tuple[list[bytes], str]], others: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder), SECRETS)
        model, stack = Stack(), Stack()
        for number, (ids, step) in enumerate(steps):
            found = (entries, moved)[number % 2](number, ids)
            model.add(found)
            stack.add(found)
            if step:
                stack.spill(shelf.add(stack.top, []))
            if step == "join":
                stack.join(stack.mapped[-2:], shelf.join(hoard._segments(stack)[-2:]))
            elif step == "reopen":
                stack = Stack()
                for each in shelf.segments():
                    stack.mount(each)
        positions = range(len(model))
        assert len(stack) == len(model)
        assert list(stack.locations(positions)) == list(model.locations(positions))
        assert list(stack.locations(reversed(positions))) == list(model.locations(reversed(positions)))
        for chunk_id in [*others, *map(model.chunk_id, positions)]:
            assert list(stack.positions(chunk_id)) == list(model.positions(chunk_id))
            assert stack.absent([chunk_id]) == model.absent([chunk_id])
        for pack_id, size in model.sizes():
            assert stack.entries(pack_id) == model.entries(pack_id)
            assert dict(stack.sizes())[pack_id] == size


@given(st.lists(st.integers(1, 1000), max_size=50))
def test_there_are_few_parts(sizes: list[int]) -> None:
    """Each has at least twice the chunks of all behind it."""
    parts: list[int] = []
    for size in sizes:
        parts.append(size)
        if joined := hoard._to_join([range(each) for each in parts]):
            parts[-len(joined) :] = [sum(map(len, joined))]
        assert all(part >= 2 * sum(parts[place:]) for place, part in enumerate(parts, 1))
    assert len(parts) <= 11


def test_an_object_without_its_packs(tmp_path: Path) -> None:
    """Its segment is there, and the one with its packs was lost."""
    shelf = Shelf(tmp_path, SECRETS)
    stack = Stack()
    stack.add(entries(1, [b"i" * 32]))
    whole, broken = (
        Known(Link("indexes/" + digit * 32, bytes(32)), (), (), bytes([number]) * 16)
        for digit, number in (("1", 1), ("2", 2))
    )
    shelf.add(stack.top, [broken, whole])
    assert hoard.Hoard(shelf).mount(Stack()) == [whole]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is new goes into the cache."""
    monkeypatch.setattr(hoard, "KEPT_OBJECTS", 1)
    monkeypatch.setattr(hoard, "LOADED_CHUNKS", 4)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


CHUNKS = 20


@pytest.fixture
def cached(faulty: FaultyStore, cache: Path, small_packs: int, at_once: None) -> Repository:
    """Twenty chunks in eight packs and four index objects, all of them in the cache, as seen by another process."""
    repo = stores.new_repository(faulty)
    for first in range(0, CHUNKS, 5):
        with repo.writer(samples.ignore) as running:
            samples.put(repo, running, {number: noise(number) for number in range(first, first + 5)})
    assert samples.known(stores.reopened(repo, cache)) == CHUNKS
    faulty.requests.clear()
    return stores.reopened(repo, cache)


def assert_sound(repo: Repository, count: int = CHUNKS) -> None:
    """What is there is found and read, what is not is missing."""
    assert len(list(repo.read_chunks(samples.ids_of(repo, *range(count))))) == count
    assert repo.missing(samples.ids_of(repo, *range(count + 3))) == samples.ids_of(repo, *range(count, count + 3))
    assert repo.holdings.damaged == []


def segments(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*/*") if len(path.name) == 32]


def test_nothing_is_read_twice(cached: Repository, faulty: FaultyStore, cache: Path) -> None:
    assert_sound(cached)
    assert faulty.count("read", "indexes/") == faulty.count("list", "packs/") == 0
    with stores.reopened(cached).writer(samples.ignore) as running:
        samples.put(cached, running, {20: noise(20)})
    with stores.reopened(cached, cache).writer(samples.ignore) as again:
        samples.put(cached, again, {20: noise(20)})
    assert again.packs == []
    assert faulty.count("read", "indexes/") == CHUNKS // 5 + 1, "without a cache all, with it the new one"
    assert {path.stat().st_mode & 0o777 for path in segments(cache)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (cache, *cache.iterdir())} == {0o700}


def test_what_is_little_makes_no_cache(cache: Path) -> None:
    repo = stores.new_repository()
    with stores.reopened(repo, cache).writer(samples.ignore) as running:
        samples.put(repo, running, {1: noise(1)})
    assert not cache.exists()


def test_the_same_heads_and_links(cached: Repository) -> None:
    plain = stores.reopened(cached)
    assert set(cached.index.heads()) == set(plain.index.heads())
    assert cached.index.linked() == plain.index.linked()
    assert cached.index.packs() == plain.index.packs()
    for pack_id in plain.index.packs():
        assert cached.index.entries(pack_id) == plain.index.entries(pack_id)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def unfinished(path: Path) -> None:
    """Killed before the last page was written."""
    flip(path, range(48))


def altered(path: Path) -> None:
    """It says that it is of another index object."""
    before, told, after = path.read_bytes().rpartition(b'"name":"indexes/')
    path.write_bytes(before + told + (b"1" if after[:1] == b"0" else b"0") + after[1:])


def other_repository(path: Path) -> None:
    stack = Stack()
    stack.add(entries(1, [bytes(32)]))
    made = Shelf(path.parent, Secrets.generate()).add(stack.top, [])
    made.path.replace(path)


def flip(path: Path, places: range | list[int]) -> None:
    path.write_bytes(samples.flipped(path.read_bytes(), places))


@pytest.mark.parametrize("harm", [truncated, emptied, unfinished, altered, other_repository, Path.unlink])
def test_a_segment_that_cannot_be_used(cached: Repository, cache: Path, harm: Callable[[Path], None]) -> None:
    for path in segments(cache):
        harm(path)
    assert_sound(cached)
    assert_sound(stores.reopened(cached, cache))


@pytest.mark.parametrize("place", [0, 1, -1])
def test_one_of_several_segments_is_lost(
    cached: Repository, cache: Path, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """What it had is read again, and nothing else."""
    monkeypatch.setattr(hoard, "_to_join", lambda parts: [])
    shutil.rmtree(cache)
    stores.reopened(cached, cache).holdings.refresh()
    names = json.loads(next(cache.glob("*/current")).read_bytes())
    assert len(names) > 2
    next(cache.glob(f"*/{names[place]}")).unlink()
    faulty.requests.clear()
    assert_sound(stores.reopened(cached, cache))
    assert 0 < faulty.count("read", "indexes/") < CHUNKS // 5
    assert faulty.count("list", "packs/") == 0


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b'["../../x", 7, "ab"]', b"\xff"])
def test_a_list_that_makes_no_sense(cached: Repository, cache: Path, content: bytes) -> None:
    for path in cache.glob("*/current"):
        path.write_bytes(content)
    assert_sound(cached)
    assert_sound(stores.reopened(cached, cache))


@pytest.mark.parametrize("column", list(segment._TYPES))
def test_a_damaged_column(cached: Repository, cache: Path, column: str) -> None:
    """Whatever a column says, nothing is lost, nothing that is not there counts as stored; later all is well again."""
    for path in segments(cache):
        repository_key = seal.derive(cached.secrets.structure, b"index cache")
        start, length, _ = segment.Segment(path, repository_key, Stack().top.base)._places[column]
        flip(path, range(start, start + length))
    assert set(samples.ids_of(cached, *range(20, 23))) <= set(cached.missing(samples.ids_of(cached, *range(23))))
    assert len(list(cached.read_chunks(samples.ids_of(cached, *range(CHUNKS))))) == CHUNKS
    assert_sound(cached)
    assert_sound(stores.reopened(cached, cache))


@pytest.mark.parametrize("column", ["ids", "slots"])
def test_damage_that_comes_later_is_not_joined(cached: Repository, cache: Path, column: str) -> None:
    [path] = segments(cache)
    key = seal.derive(cached.secrets.structure, b"index cache")
    cached.holdings.recheck()
    start, length, _ = segment.Segment(path, key, Stack().top.base)._places[column]
    flip_mapped(path, start, length)
    with cached.writer(samples.ignore) as running:
        samples.put(cached, running, {number: noise(number) for number in range(20, 70)})
    for repo in (cached, stores.reopened(cached, cache)):
        assert repo.missing(samples.ids_of(repo, *range(70))) == [], "it was seen, and read again from the store"
        assert_sound(repo, 70)


def test_a_cache_that_cannot_be_looked_through_is_damaged(cached: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    cached.holdings.recheck()
    fault = stores.fail(OSError("a bad sector"))
    with monkeypatch.context() as patched:
        patched.setattr(segment, "_pieces", lambda *_: fault(list))
        cached.holdings.recheck(again=True)
    assert_sound(cached)


def test_what_was_joined_is_let_go(cached: Repository, cache: Path) -> None:
    for number in range(20, 23):
        cached.holdings.recheck(again=True)
        with cached.writer(samples.ignore) as running:
            samples.put(cached, running, {number: noise(number)})
    opened = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert not [each for each in opened if each.startswith(str(cache)) and each.endswith("(deleted)")]


def flip_mapped(path: Path, start: int, length: int) -> None:
    """In the file itself, which somebody has mapped."""
    with path.open("r+b") as file:
        file.seek(start)
        data = file.read(length)
        file.seek(start)
        file.write(samples.flipped(data, range(length)))


def remove(repo: Repository, *names: str) -> None:
    for name in names:
        repo.store.delete(name)


def index_objects(repo: Repository) -> list[str]:
    return sorted(name for name, _ in repo.store.list("indexes/"))


def listed_in(repo: Repository, name: str) -> list[PackEntries]:
    payload = seal.open_object(repo.secrets, layout.Kind.INDEX, name, repo.store.read(name))
    return listing.decode(name, payload).packs


def put_index(repo: Repository, packs: list[PackEntries], replaced: list[str]) -> str:
    name = layout.INDEXES + os.urandom(16).hex()
    gone = [Link(each, bytes(32)) for each in replaced]
    data = seal.seal_object(repo.secrets, layout.Kind.INDEX, name, listing.encode(packs, (), gone))
    repo.store.create(name, data)
    return name


@pytest.mark.parametrize("running", [False, True])
def test_index_objects_that_were_collected(cached: Repository, cache: Path, running: bool) -> None:
    """One in place of all, without one pack: its chunks are not stored any longer, all others are."""
    if running:
        assert samples.known(cached) == CHUNKS
    names = index_objects(cached)
    packs = [each for name in names for each in listed_in(cached, name)]
    put_index(cached, packs[1:], names)
    remove(cached, *names, pack.pack_key(packs[0].pack_id))
    for repo in (cached, stores.reopened(cached, cache), stores.reopened(cached)):
        repo.holdings.refresh()
        gone = [packs[0].ids[start : start + 32] for start in range(0, len(packs[0].ids), 32)]
        assert gone and set(repo.missing(samples.ids_of(repo, *range(CHUNKS)))) == set(gone)
        assert repo.index.packs() == {each.pack_id for each in packs[1:]}
        assert len(list(repo.read_chunks(set(samples.ids_of(repo, *range(CHUNKS))) - set(gone)))) == CHUNKS - len(gone)
        assert set(repo.index.linked()) == set() and {link.name for link in repo.index.heads()}.isdisjoint(names)


def test_what_is_listed_anew_stays_where_it_is(cached: Repository) -> None:
    """In a process that runs for months, each collection would cost the room of all that it listed anew."""
    before = {chunk_id: cached.index.find(chunk_id) for chunk_id in samples.ids_of(cached, *range(CHUNKS))}
    for _ in range(3):
        names = index_objects(cached)
        put_index(cached, [each for name in names for each in listed_in(cached, name)], names)
        remove(cached, *names)
        cached.holdings.refresh()
    assert samples.known(cached) == CHUNKS
    assert {chunk_id: cached.index.find(chunk_id) for chunk_id in before} == before


def test_most_is_gone(cached: Repository, cache: Path) -> None:
    names = index_objects(cached)
    kept = listed_in(cached, names[0])
    put_index(cached, kept, names)
    remove(cached, *names)
    before = segments(cache)
    assert samples.known(cached) == sum(map(len, kept)), "and what is gone takes no room"
    assert set(segments(cache)).isdisjoint(before)
    assert samples.known(stores.reopened(cached, cache)) == samples.known(cached)


def test_an_unmounted_place_has_lost_nothing(tmp_path: Path, cache: Path, at_once: None) -> None:
    store = LocalStore(tmp_path / "store")
    repo = stores.new_repository(store)
    with repo.writer(samples.ignore) as running:
        samples.put(repo, running, {1: noise(1)})
    other = stores.reopened(repo, cache)
    assert other.missing(samples.ids_of(other, 1)) == []
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(errors.StoreFailed, match="mounted"):
        other.holdings.refresh()
    (tmp_path / "away").rename(tmp_path / "store")
    assert other.missing(samples.ids_of(other, 1)) == []


def test_a_lost_config_does_not_hide_what_else_is_lost(cached: Repository) -> None:
    assert samples.known(cached) == CHUNKS
    remove(cached, "config", index_objects(cached)[0])
    cached.holdings.refresh()
    assert len(cached.index.believed()) < CHUNKS, "its twin tells that this is the repository"


@pytest.mark.parametrize("lost", [False, True])
def test_verify_reads_what_the_cache_knows(cached: Repository, cache: Path, lost: bool) -> None:
    name = next(iter(cached.index.linked()))
    if lost:
        remove(cached, name)
    else:
        samples.rewrite(cached, name, samples.flipped(cached.store.read(name), [50]))
    for repo in (cached, stores.reopened(cached, cache)):
        report = verify.verify_all(repo, lambda done, total: None)
        assert [each.object for each in report.findings] == [name]
        assert report.chunks == CHUNKS


def test_losses_of_what_is_mapped(cached: Repository, cache: Path) -> None:
    [bad] = samples.ids_of(cached, 3)
    location = cached.index.find(bad)
    assert location is not None
    cached.holdings.lose(Loss(os.urandom(16).hex(), 1.0, {location.pack_id: frozenset([bad])}))
    for repo in (cached, stores.reopened(cached, cache)):
        assert repo.missing(samples.ids_of(repo, *range(CHUNKS))) == [bad]
        assert repo.index.find(bad) == location, "it may have come back"
        assert location.position not in repo.index.believed()
        assert len(repo.index.believed()) == CHUNKS - 1
    with cached.writer(samples.ignore) as running:
        samples.put(cached, running, {3: noise(3)})
    for repo in (cached, stores.reopened(cached, cache)):
        found = repo.index.find(bad)
        assert found is not None and found.pack_id != location.pack_id


def test_packs_that_the_store_lost(cached: Repository, cache: Path) -> None:
    name = samples.packs_of(cached)[0]
    pack_id = pack.id_of(name)
    assert pack_id is not None
    gone = len(cached.index.entries(pack_id))
    remove(cached, name)
    for repo in (cached, stores.reopened(cached, cache)):
        assert repo.drop_lost() == {pack_id.hex()}
        assert len(repo.missing(samples.ids_of(repo, *range(CHUNKS)))) == gone
        assert len(repo.index.believed()) == CHUNKS - gone


def test_positions_stay(cached: Repository, cache: Path) -> None:
    before = {chunk_id: cached.index.find(chunk_id) for chunk_id in samples.ids_of(cached, *range(CHUNKS))}
    for first in range(20, 50, 5):
        with cached.writer(samples.ignore) as running:
            samples.put(cached, running, {number: noise(number) for number in range(first, first + 5)})
    assert len(segments(cache)) < 5, "they were joined"
    assert {chunk_id: cached.index.find(chunk_id) for chunk_id in before} == before
    assert cached.index.chunk_ids(found.position for found in before.values() if found) == list(before)


def test_a_cache_in_an_impossible_place(cached: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    other = stores.reopened(cached, tmp_path / "file" / "cache")
    assert_sound(other)
    assert isinstance(other.holdings.cache_failure, NotADirectoryError)


def test_several_at_once(cached: Repository, cache: Path) -> None:
    """Each writes, and keeps, what the others do not know yet."""
    repos = [stores.reopened(cached, cache) for _ in range(4)]
    numbers = itertools.count(CHUNKS)
    for _, repo in itertools.product(range(3), repos):
        with repo.writer(samples.ignore) as running:
            fresh = next(numbers)
            samples.put(repo, running, {fresh: noise(fresh)})
        assert repo.missing(samples.ids_of(repo, fresh, *range(CHUNKS))) == []
    count = next(numbers)
    for repo in (*repos, stores.reopened(cached, cache)):
        repo.holdings.refresh()
        assert_sound(repo, count)
        assert len(repo.index.believed()) == count, "each once"


def _write_on(place: Path, cache: Path, seed: int) -> None:
    """Until it is killed."""
    hoard.KEPT_OBJECTS = 1
    source = random.Random(seed)
    repo = stores.reopened(repository.open(LocalStore(place), lambda: stores.PASSWORD), cache)
    while True:
        with repo.writer(samples.ignore) as running:
            samples.put(repo, running, {number: source.randbytes(500) for number in range(9)})


@pytest.fixture
def writers(tmp_path: Path, cache: Path) -> Iterator[list[multiprocessing.process.BaseProcess]]:
    spawn = multiprocessing.get_context("spawn")
    found: list[multiprocessing.process.BaseProcess] = [
        spawn.Process(target=_write_on, args=(tmp_path / "store", cache, seed)) for seed in range(3)
    ]
    yield found
    for each in found:
        if each.pid:
            each.kill()
            each.join()


def test_killed_while_they_write(
    tmp_path: Path, cache: Path, at_once: None, writers: list[multiprocessing.process.BaseProcess]
) -> None:
    repo = stores.new_repository(LocalStore(tmp_path / "store"))
    for each in writers:
        each.start()
    deadline = time.monotonic() + 30
    for number, each in enumerate(writers, 1):
        while len(index_objects(repo)) < 15 * number:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert each.pid is not None
        os.kill(each.pid, signal.SIGKILL)
        each.join()
    plain = stores.reopened(repo)
    for _ in range(2):
        kept = stores.reopened(repo, cache)
        assert len(kept.index.believed()) == samples.known(plain)
        assert kept.missing(plain.index.chunk_ids(range(samples.known(plain)))) == []
        assert kept.drop_lost() == set()
    assert len(segments(cache)) < 15
    shutil.rmtree(cache)
    assert samples.known(stores.reopened(repo, cache)) == samples.known(plain)
