"""What the writer promises about durability, whatever the store does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from headstart import errors
from headstart.repository import layout, writer
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, block, noise

CONTENT = ChunkClass.CONTENT


@pytest.fixture
def repo(faulty: FaultyStore) -> Repository:
    return stores.new_repository(faulty)


def put(repo: Repository, running: writer.Writer[int], *numbers: int) -> None:
    for number in numbers:
        data = noise(number)
        running.put(CONTENT, repo.chunk_id(data), data, number)


def test_reads_back_what_was_put(repo: Repository) -> None:
    contents = {0: block(0), 1: noise(1), 2: b"", 3: b"x", 4: bytes(BLOCK)}
    with repo.writer(samples.ignore) as running:
        ids = samples.put(repo, running, contents)
    again = stores.reopened(repo)
    assert dict(again.read_chunks(ids.values())) == {ids[number]: data for number, data in contents.items()}


def test_reports_every_token_once(repo: Repository, small_packs: int) -> None:
    durable: list[int] = []
    with repo.writer(durable.extend) as running:
        put(repo, running, *range(20), *range(20))
    assert Counter(durable) == dict.fromkeys(range(20), 2)
    more: list[int] = []
    with stores.reopened(repo).writer(more.extend) as running:
        put(repo, running, *range(25))
        running.put(CONTENT, repo.chunk_id(noise(99)), noise(99))
    assert sorted(more) == list(range(25))


def test_reports_only_what_another_process_can_read(repo: Repository, small_packs: int) -> None:
    checked: list[int] = []

    def check(tokens: list[int]) -> None:
        other = stores.reopened(repo)
        for token in tokens:
            assert other.read_chunk(repo.chunk_id(noise(token))) == noise(token)
        checked.extend(tokens)

    with repo.writer(check) as running:
        put(repo, running, *range(12))
        assert len(checked) < 12
        running.flush()
        assert sorted(checked) == list(range(12))


def test_reports_on_its_own_threads_one_at_a_time(repo: Repository, small_packs: int) -> None:
    threads: set[int] = set()
    reporting = threading.Lock()

    def note(tokens: list[int]) -> None:
        assert reporting.acquire(blocking=False)
        threads.add(threading.get_ident())
        time.sleep(0.01)
        reporting.release()

    with repo.writer(note) as running:
        put(repo, running, *range(60), *range(20))
    assert threading.get_ident() not in threads


def test_reports_known_chunks_without_waiting_for_a_flush(repo: Repository) -> None:
    with repo.writer(samples.ignore) as running:
        put(repo, running, 1)
    reported = threading.Event()

    def note(tokens: list[int]) -> None:
        reported.set()

    with repo.writer(note) as running:
        put(repo, running, *[1] * 256)
        assert reported.wait(10)


def test_a_failing_store(repo: Repository, faulty: FaultyStore, small_packs: int) -> None:
    """From the second pack on all are lost: what was in the first counts, nothing else, and never again."""
    durable: list[int] = []
    reported = threading.Event()

    def note(tokens: list[int]) -> None:
        durable.extend(tokens)
        reported.set()

    def fail_then(_: Callable[[], object]) -> object:
        # Both are on their way at once, and after a failure nothing is reported.
        assert reported.wait(10)
        raise errors.NoSpace("the disk is full")

    # Several are under way at once: one that came behind the second would be stored as well.
    for number in range(2, 20):
        faulty.plan("create", fail_then, prefix="packs/", number=number)
    with pytest.raises(errors.NoSpace, match="full"), repo.writer(note) as running:
        put(repo, running, *range(1000))
    assert len(samples.packs_of(repo)) == 1
    again = stores.reopened(repo)
    again.holdings.adopt_all()
    assert {repo.chunk_id(noise(number)) for number in durable} == {
        repo.chunk_id(noise(number)) for number in range(1000) if repo.chunk_id(noise(number)) in again
    }
    assert 0 < len(durable) < 4
    assert faulty.count("create", "indexes/") == 0


def test_nothing_works_after_a_failure(repo: Repository, faulty: FaultyStore) -> None:
    durable: list[int] = []
    faulty.plan("create", stores.lose(errors.StoreFailed("connection lost")), prefix="packs/")
    with pytest.raises(errors.StoreFailed, match="connection lost"), repo.writer(durable.extend) as running:
        put(repo, running, 1)
        for _ in range(2):
            with pytest.raises(errors.StoreFailed, match="connection lost"):
                running.flush()
        with pytest.raises(errors.StoreFailed, match="connection lost"):
            put(repo, running, 2)
        raise errors.StoreFailed("connection lost")
    assert durable == []
    assert faulty.count("create", "packs/") == 1


def test_a_failure_while_the_index_is_written(repo: Repository, faulty: FaultyStore) -> None:
    """The chunks are durable all the same, and the next index object lists them."""
    faulty.plan("create", stores.fail(errors.StoreFailed("later")), prefix="indexes/")
    durable: list[int] = []
    with pytest.raises(errors.StoreFailed), repo.writer(durable.extend) as running:
        put(repo, running, 1)
    assert durable == [1]
    with repo.writer(durable.extend) as running:
        put(repo, running, 2)
    assert faulty.count("create", "packs/") == 2
    assert samples.known(stores.reopened(repo)) == 2


def test_a_failing_callback(repo: Repository, faulty: FaultyStore) -> None:
    def fail(tokens: list[int]) -> None:
        raise errors.NoSpace("no room for the journal")

    with pytest.raises(errors.NoSpace, match="journal"), repo.writer(fail) as running:
        put(repo, running, 1)
    assert faulty.count("create", "indexes/") == 0


def test_leaving_with_an_exception_abandons(repo: Repository, faulty: FaultyStore) -> None:
    durable: list[int] = []
    with pytest.raises(KeyboardInterrupt), repo.writer(durable.extend) as running:
        put(repo, running, 1)
        raise KeyboardInterrupt
    assert durable == []
    assert faulty.count("create", "packs/") == faulty.count("create", "indexes/") == 0
    with repo.writer(durable.extend) as running:
        put(repo, running, 1)
    assert durable == [1]


def test_what_becomes_durable_after_a_failure_is_not_reported(repo: Repository, faulty: FaultyStore) -> None:
    """The block was left while a pack was on its way."""
    durable: list[int] = []
    under_way, release = threading.Event(), threading.Event()

    def hang(act: Callable[[], object]) -> object:
        under_way.set()
        assert release.wait(60)
        return act()

    faulty.plan("create", hang, prefix="packs/")
    threading.Timer(0.3, release.set).start()
    with pytest.raises(KeyboardInterrupt), repo.writer(durable.extend) as running, ThreadPoolExecutor(1) as threads:
        put(repo, running, 1)
        flushing = threads.submit(running.flush)
        assert under_way.wait(10)
        running._fail(errors.StoreFailed("something else"))
        with pytest.raises(errors.StoreFailed, match="something else"):
            flushing.result()
        raise KeyboardInterrupt
    assert durable == []
    assert faulty.count("create", "packs/") == 1


def test_flush_may_be_repeated(repo: Repository, faulty: FaultyStore) -> None:
    with repo.writer(samples.ignore) as running:
        running.flush()
        put(repo, running, 1)
        running.flush()
        running.flush()
        put(repo, running, 2)
    assert faulty.count("create", "indexes/") == 2
    assert faulty.count("create", "packs/") == 2


def test_an_answer_that_was_lost_and_a_retry_around_the_store() -> None:
    """The repeated create finds the pack of the first: the same bytes, so it is ours."""

    class Retrying(FaultyStore):
        def create(self, key: str, data: bytes | bytearray | memoryview) -> None:
            try:
                super().create(key, data)
            except errors.StoreFailed:
                super().create(key, data)

    store = Retrying(MemoryStore())
    repo = stores.new_repository(store)
    store.plan("create", stores.lose(errors.StoreFailed("connection lost")), prefix="packs/")
    durable: list[int] = []
    with repo.writer(durable.extend) as running:
        put(repo, running, 1)
    assert durable == [1]
    assert stores.reopened(repo).read_chunk(repo.chunk_id(noise(1))) == noise(1)


def test_says_what_it_added(repo: Repository, faulty: FaultyStore) -> None:
    before = sum(size for _, size in faulty.store.list(""))
    with repo.writer(samples.ignore) as running:
        data = noise(1)
        assert running.put(CONTENT, repo.chunk_id(data), data, 1) == BLOCK + layout.TAG_LENGTH
        assert running.put(CONTENT, repo.chunk_id(data), data, 2) == 0
        data = block(2)
        assert running.put(CONTENT, repo.chunk_id(data), data, 3) < BLOCK
    assert running.stored_bytes == sum(size for _, size in faulty.store.list("")) - before
    assert [f"packs/{pack}" for pack in running.packs] == samples.packs_of(repo)


def test_the_buffer_is_the_callers_again(repo: Repository) -> None:
    buffer = bytearray(noise(1))
    with repo.writer(samples.ignore) as running:
        running.put(CONTENT, repo.chunk_id(buffer), memoryview(buffer), 1)
        buffer[:] = bytes(BLOCK)
    assert stores.reopened(repo).read_chunk(repo.chunk_id(noise(1))) == noise(1)


def test_classes_lie_in_packs_of_their_own(repo: Repository) -> None:
    with repo.writer(samples.ignore) as running:
        for chunk_class in ChunkClass:
            running.put(chunk_class, repo.chunk_id(b"x", chunk_class), b"x")
    assert len(samples.packs_of(repo)) == 2
    for chunk_class in ChunkClass:
        assert repo.read_chunk(repo.chunk_id(b"x", chunk_class)) == b"x"


def test_a_pack_is_no_longer_than_it_should_be(repo: Repository, small_packs: int) -> None:
    with repo.writer(samples.ignore) as running:
        put(repo, running, *range(10))
    assert all(size <= small_packs for _, size in repo.store.list("packs/"))
    assert len(samples.packs_of(repo)) == 4


def test_a_chunk_that_is_too_long(repo: Repository) -> None:
    with pytest.raises(ValueError, match="too long"), repo.writer(samples.ignore) as running:
        running.put(CONTENT, bytes(32), bytes(layout.MAX_CHUNK_LENGTH + 1))


def test_a_slow_store_bounds_what_is_in_memory(repo: Repository, faulty: FaultyStore, small_packs: int) -> None:
    release = threading.Event()
    for number in range(writer.UPLOADS):
        faulty.plan("create", stores.hang(release), prefix="packs/", number=number + 1)
    done: list[int] = []

    def fill(running: writer.Writer[int]) -> None:
        for number in range(60):
            put(repo, running, number)
            done.append(number)

    with repo.writer(samples.ignore) as running, ThreadPoolExecutor(1) as threads:
        filling = threads.submit(fill, running)
        _until_steady(done)
        assert len(done) * BLOCK <= writer.MAX_PACKS * small_packs
        release.set()
        filling.result()
    assert samples.known(stores.reopened(repo)) == 60


def _until_steady(done: list[int]) -> None:
    before = -1
    while before != len(done) or not done:
        before = len(done)
        time.sleep(0.3)


def test_a_failure_frees_who_waits_for_room(repo: Repository, faulty: FaultyStore, small_packs: int) -> None:
    release = threading.Event()

    def hang_then_fail(_: object) -> object:
        assert release.wait(60)
        raise errors.StoreFailed("gone")

    faulty.plan("create", hang_then_fail, prefix="packs/")
    threading.Timer(0.5, release.set).start()
    with pytest.raises(errors.StoreFailed, match="gone"), repo.writer(samples.ignore) as running:
        put(repo, running, *range(60))


def test_many_threads(repo: Repository, faulty: FaultyStore, small_packs: int) -> None:
    durable: list[int] = []
    contents = [block(number) for number in range(100)]

    def fill(running: writer.Writer[int], first: int) -> None:
        for step in range(100):
            data = contents[(first + step) % 100]
            running.put(CONTENT, repo.chunk_id(data), data, (first + step) % 100)

    with repo.writer(durable.extend) as running, ThreadPoolExecutor(4) as threads:
        for filling in [threads.submit(fill, running, first) for first in (0, 25, 50, 75)]:
            filling.result()
    assert Counter(durable) == dict.fromkeys(range(100), 4)
    again = stores.reopened(repo)
    assert samples.known(again) == 100
    assert {data for _, data in again.read_chunks(map(repo.chunk_id, contents))} == set(contents)


@pytest.mark.parametrize("processes", [1, 2])
def test_two_writers_at_once(repo: Repository, small_packs: int, processes: int) -> None:
    """In one process, or each in its own. What both put may be stored twice, and is whole."""
    repos = [repo, repo if processes == 1 else stores.reopened(repo)]
    barrier = threading.Barrier(2)

    def run(which: int) -> list[int]:
        durable: list[int] = []
        with repos[which].writer(durable.extend) as running:
            barrier.wait()
            put(repo, running, *range(which * 10, which * 10 + 20))
        return durable

    with ThreadPoolExecutor(2) as threads:
        reported = list(threads.map(run, (0, 1)))
    assert [sorted(durable) for durable in reported] == [list(range(20)), list(range(10, 30))]
    again = stores.reopened(repo)
    ids = {repo.chunk_id(noise(number)): noise(number) for number in range(30)}
    assert dict(again.read_chunks(ids)) == ids


def test_a_long_run_writes_indexes_on_its_way(
    repo: Repository, faulty: FaultyStore, small_packs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_INDEX_CHUNKS", 6)
    with repo.writer(samples.ignore) as running:
        put(repo, running, *range(20))
    assert faulty.count("create", "indexes/") >= 3
    assert samples.known(stores.reopened(repo)) == 20
