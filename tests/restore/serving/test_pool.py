"""Chunks are fetched once, whoever asks for them, and no more of them are kept than there is room for."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headstart import errors
from headstart.repository import Repository, layout
from headstart.repository.writer import Cut
from headstart.restore.serving.pool import Pool
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.restore import stored

FRAME = layout.FRAME_SIZE


def with_chunks(count: int) -> tuple[Repository, FaultyStore, dict[bytes, bytes]]:
    """Chunks in the order in which they lie in frames, four in each."""
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    blocks = [random.Random(number).randbytes(stored.BLOCK) for number in range(count)]
    cuts = [Cut[int](repo.chunk_id(data), number * stored.BLOCK, stored.BLOCK) for number, data in enumerate(blocks)]
    with repo.writer(stored.ignore) as writer:
        writer.put_many(layout.ChunkClass.CONTENT, b"".join(blocks), cuts)
    return repo, store, {cut.chunk_id: data for cut, data in zip(cuts, blocks, strict=True)}


def requests(store: FaultyStore) -> int:
    return store.count("read_range", "packs/")


def test_what_is_kept_costs_no_request() -> None:
    repo, store, contents = with_chunks(4)
    pool = Pool(repo, FRAME)
    assert pool.read(contents) == contents
    before = requests(store)
    assert pool.read(contents) == contents
    assert requests(store) == before


def test_only_so_much_is_kept() -> None:
    repo, _, contents = with_chunks(40)
    pool = Pool(repo, 3 * FRAME)
    for chunk, data in contents.items():
        assert pool.read([chunk]) == {chunk: data}
        assert sum(kept.size for kept in pool._kept.values()) == pool._size <= 3 * FRAME
        assert {chunk for kept in pool._kept.values() for chunk in kept.chunks} == pool._chunks.keys()
    assert pool._size > 2 * FRAME


def test_a_frame_counts_as_a_whole_though_one_chunk_of_it_is_used() -> None:
    repo, _, contents = with_chunks(8)
    pool = Pool(repo, 10 * FRAME)
    pool.read([next(iter(contents))])
    assert pool._size == FRAME


def test_without_any_room_everything_can_be_read() -> None:
    repo, _, contents = with_chunks(9)
    assert Pool(repo, 0).read(contents) == contents


def test_several_who_want_the_same_wait_for_one_request() -> None:
    repo, store, contents = with_chunks(4)
    repo.holdings.refresh()
    pool = Pool(repo, FRAME)
    release = threading.Event()
    store.plan("read_range", stores.hang(release), "packs/")
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(pool.read, contents)
        while not pool._flights:
            pass
        others = [threads.submit(pool.read, [chunk]) for chunk in contents]
        release.set()
        assert first.result(10) == contents
        assert [each.result(10) for each in others] == [{chunk: data} for chunk, data in contents.items()]
    assert requests(store) == 1


def test_who_waits_gets_it_even_if_it_is_not_kept() -> None:
    repo, store, contents = with_chunks(4)
    repo.holdings.refresh()
    pool = Pool(repo, 0)
    release = threading.Event()
    store.plan("read_range", stores.hang(release), "packs/")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pool.read, contents)
        while not pool._flights:
            pass
        other = threads.submit(pool.read, contents)
        release.set()
        assert first.result(10) == other.result(10) == contents


def test_a_failure_goes_to_all_who_wait_and_is_forgotten() -> None:
    repo, store, contents = with_chunks(4)
    repo.holdings.refresh()
    pool = Pool(repo, FRAME)
    release = threading.Event()

    def hang_and_fail(act: object) -> object:
        assert release.wait(10)
        raise errors.StoreFailed("planned")

    store.plan("read_range", hang_and_fail, "packs/")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pool.read, contents)
        while not pool._flights:
            pass
        other = threads.submit(pool.read, contents)
        release.set()
        for each in (first, other):
            with pytest.raises(errors.StoreFailed, match="planned"):
                each.result(10)
    assert pool.read(contents) == contents


def test_damage_is_told_for_its_chunk_and_not_kept() -> None:
    store = MemoryStore()
    repo = stores.new_repository(store)
    pool = Pool(repo, FRAME)
    nowhere = bytes(layout.CHUNK_ID_LENGTH)
    assert isinstance(pool.read([nowhere])[nowhere], errors.Damaged)
    assert not pool._chunks


def test_what_was_fetched_ahead_is_there() -> None:
    repo, store, contents = with_chunks(4)
    pool = Pool(repo, FRAME)
    pool.ahead(contents)
    pool._threads.shutdown()
    before = requests(store)
    assert pool.read(contents) == contents
    assert requests(store) == before


def test_nobody_hears_of_what_could_not_be_fetched_ahead_before_reading_it() -> None:
    repo, store, contents = with_chunks(4)
    pool = Pool(repo, FRAME)
    store.plan("read_range", stores.fail(errors.StoreFailed("planned")), "packs/")
    pool.ahead(contents)
    pool._threads.shutdown()
    assert not pool._flights
    assert pool.read(contents) == contents


@pytest.mark.parametrize("room", [0, 2, 100])
def test_many_threads_get_what_they_asked_for(room: int) -> None:
    repo, _, contents = with_chunks(40)
    pool = Pool(repo, room * FRAME)
    everything = list(contents)

    def read(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(30):
            wanted = chosen.sample(everything, 5)
            along = set(chosen.sample(everything, 5))
            assert pool.read(wanted, along.copy) == {chunk: contents[chunk] for chunk in wanted}

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))
    assert not pool._flights
