"""The index against a dictionary, and its ways to find what no index object lists."""

from __future__ import annotations

import contextlib
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import errors
from headstart.repository import condemned, holdings, layout, listing, pack
from headstart.repository.link import Link
from headstart.repository.loss import Loss
from headstart.repository.memtable import MemTable
from headstart.repository.repo import Repository
from headstart.repository.stack import Stack
from headstart.store.contract import Missing
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.listed import IDS, entries
from tests.repository.samples import noise


@given(st.lists(st.lists(IDS, max_size=20), max_size=5), st.lists(IDS, max_size=5))
def test_table_is_a_dictionary(packs: list[list[bytes]], others: list[bytes]) -> None:
    table = Stack()
    model: dict[bytes, tuple[int, int]] = {}
    for number, ids in enumerate(packs):
        table.add(entries(number, ids))
        for place, chunk_id in enumerate(ids):
            model.setdefault(chunk_id, (number, place))
    for chunk_id in [*model, *others]:
        position = table.position(chunk_id)
        assert (position >= 0) == (chunk_id in model)
        if position >= 0:
            number, place = model[chunk_id]
            found = table.location(position)
            counts = entries(number, packs[number]).counts
            frame = next(each for each in range(len(counts)) if sum(counts[: each + 1]) > place)
            first, end = sum(counts[:frame]), sum(counts[: frame + 1])
            assert (found.pack_id, found.frame.origin, found.frame.number) == (*[bytes([number]) * 16] * 2, frame)
            assert found.frame.offset == layout.PACK_START + sum(100 + before for before in range(frame))
            assert (found.frame.sealed_length, found.frame.flags) == (100 + frame, frame % 2)
            assert found.frame.length == sum(range(200 + first, 200 + end))
            assert (found.start, found.length) == (sum(range(200 + first, 200 + place)), 200 + place)
            assert table.chunk_id(position) == chunk_id


def test_ids_that_begin_alike() -> None:
    ids = [bytes(24) + number.to_bytes(8, "big") for number in range(3000)]
    table = Stack()
    table.add(entries(1, ids))
    assert [table.position(chunk_id) for chunk_id in ids] == list(range(3000))
    assert table.position(b"\xff" * 32) == -1


def test_memory_of_a_chunk() -> None:
    source = random.Random(1)
    packs = [entries(number, [source.randbytes(32) for _ in range(2000)]) for number in range(100)]
    tracemalloc.start()
    table = MemTable()
    for listed in packs:
        table.add(listed)
    used, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(table) <= 80
    assert peak / len(table) <= 120


@given(st.lists(st.lists(IDS, max_size=5), max_size=4))
def test_roundtrip_of_an_index_object(packs: list[list[bytes]]) -> None:
    listed = [entries(number, ids) for number, ids in enumerate(packs)]
    assert listing.decode("x", listing.encode(listed)) == listing.Listed(listed, [], [])


def test_an_index_object_links_others() -> None:
    links = [Link("indexes/" + "1" * 32, b"d" * 32), Link("losses/" + "2" * 32, b"e" * 32)]
    replaced = [Link("indexes/" + "3" * 32, bytes(32))]
    listed = [entries(1, [b"i" * 32])]
    assert listing.decode("x", listing.encode(listed, links, replaced)) == listing.Listed(listed, links, replaced)


@pytest.mark.parametrize("payload", [b"x", bytes(23), b"\7" * 24, bytes(16) + b"\1\0\0\0" + b"\1\0\0\0" + bytes(40)])
def test_an_index_object_that_makes_no_sense(payload: bytes) -> None:
    with pytest.raises(errors.Damaged, match="indexes/x is damaged"):
        listing.decode("indexes/x", payload)


@pytest.fixture
def written(faulty: FaultyStore, small_packs: int) -> Repository:
    """Ten chunks in four packs and two indexes, as seen by another process."""
    repo = stores.new_repository(faulty)
    for first in (0, 5):
        with repo.writer(samples.ignore) as running:
            samples.put(repo, running, {number: noise(number) for number in range(first, first + 5)})
    faulty.requests.clear()
    return stores.reopened(repo)


def test_loads_when_first_asked(written: Repository, faulty: FaultyStore) -> None:
    assert faulty.count("list", "indexes/") == 0
    assert written.missing(samples.ids_of(written, 3, 99, 7, 99)) == samples.ids_of(written, 99)
    assert samples.ids_of(written, 3)[0] in written
    assert faulty.count("read", "indexes/") == 2
    assert faulty.count("read_range") == faulty.count("list", "packs/") == 0


def test_a_writer_knows_what_others_added(written: Repository) -> None:
    assert samples.known(written) == 10
    with stores.reopened(written).writer(samples.ignore) as running:
        samples.put(written, running, {20: noise(20)})
    assert written.missing(samples.ids_of(written, 20))
    with written.writer(samples.ignore) as running:
        samples.put(written, running, {20: noise(20)})
    assert running.packs == []


def lose_indexes(repo: Repository) -> None:
    for name, _ in list(repo.store.list("indexes/")):
        repo.store.delete(name)


def test_finds_chunks_without_any_index_object(written: Repository) -> None:
    lose_indexes(written)
    assert written.read_chunk(samples.ids_of(written, 3)[0]) == noise(3)
    assert samples.known(written) == 10


def test_adopts_a_pack_after_a_crash(written: Repository, faulty: FaultyStore) -> None:
    faulty.plan("create", stores.fail(errors.StoreFailed("crash")), prefix="indexes/")
    with pytest.raises(errors.StoreFailed), written.writer(samples.ignore) as running:
        samples.put(written, running, {20: noise(20)})
    other = stores.reopened(written)
    assert other.missing(samples.ids_of(other, 20))
    other.adopt(running.packs[0])
    assert not other.missing(samples.ids_of(other, 20))
    with other.writer(samples.ignore) as again:
        samples.put(other, again, {20: noise(20)})
    assert again.packs == []
    assert not stores.reopened(written).missing(samples.ids_of(other, 20)), (
        "the next index object lists what was adopted"
    )


def test_adopting_twice_or_what_is_known_changes_nothing(written: Repository) -> None:
    for name in samples.packs_of(written) * 2:
        written.adopt(name.removeprefix("packs/"))
    with written.writer(samples.ignore) as running:
        pass
    assert running.stored_bytes == 0
    assert samples.known(written) == 10


def test_adopting_what_is_not_there(written: Repository) -> None:
    with pytest.raises(errors.Damaged, match="packs/0000"):
        written.adopt("00" * 16)


def test_a_damaged_index_object_is_named_and_done_without(written: Repository) -> None:
    name, _ = next(written.store.list("indexes/"))
    samples.rewrite(written, name, samples.flipped(written.store.read(name), [50]))
    assert not written.missing(samples.ids_of(written, *range(10)))
    assert [error.facts["object"] for error in written.holdings.damaged] == [name]
    with written.writer(samples.ignore):
        pass
    assert sum(1 for _ in written.store.list("indexes/")) == 3, "a whole one takes its place"


#: That pass.
UNREAD = (errors.StoreFailed, errors.Damaged, Missing)


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("loaded", [True, False])
def test_a_loss_that_could_not_be_read_is_read_the_next_time(
    written: Repository, faulty: FaultyStore, kind: type[errors.HeadstartError], loaded: bool
) -> None:
    other = stores.reopened(written)
    if loaded:
        other.holdings.refresh()
    [chunk] = samples.ids_of(written, 3)
    location = written.index.find(chunk)
    assert location is not None
    written.holdings.lose(Loss("ab" * 16, 1.0, {location.pack_id: frozenset({chunk})}))
    faulty.plan("read", stores.fail(kind("not read", object="losses/" + "ab" * 16)), "losses/")
    with contextlib.suppress(errors.StoreFailed):
        other.holdings.refresh()
    other.missing([])
    other.holdings.refresh()
    assert chunk not in other
    assert other.holdings.damaged == [], "it is whole"


@pytest.mark.parametrize("kind", UNREAD)
def test_an_index_object_that_could_not_be_read_is_read_the_next_time(
    written: Repository, faulty: FaultyStore, kind: type[errors.HeadstartError]
) -> None:
    for name in samples.packs_of(written):  # so that nothing is found without an index object
        written.store.delete(name)
    name = sorted(name for name, _ in written.store.list("indexes/"))[0]
    faulty.plan("read", stores.fail(kind("not read", object=name)), name)
    with contextlib.suppress(errors.StoreFailed):
        written.holdings.refresh()
    written.holdings.refresh()
    assert samples.known(written) == 10
    assert written.holdings.damaged == [], "it is whole"


def test_what_stays_damaged_costs_a_look_into_the_packs_once(written: Repository, faulty: FaultyStore) -> None:
    name, _ = next(written.store.list("indexes/"))
    samples.rewrite(written, name, b"x")
    for _ in range(3):
        written.holdings.refresh()
    assert faulty.count("list", "packs/") == 1
    assert [error.facts["object"] for error in written.holdings.damaged] == [name]


@pytest.mark.parametrize("prefix", [layout.CONDEMNED, layout.DOOMED])
@pytest.mark.parametrize("kind", UNREAD[:2])
def test_a_list_of_what_goes_that_could_not_be_read_is_read_the_next_time(
    written: Repository, faulty: FaultyStore, prefix: str, kind: type[errors.HeadstartError]
) -> None:
    pack_id = next(iter(written.index.packs()))
    name = prefix + "ab" * 16
    listed = layout.Kind.CONDEMNED if prefix == layout.CONDEMNED else layout.Kind.DOOMED
    written.put_object(listed, name, condemned.encode([pack_id]))
    faulty.plan("read", stores.fail(kind("not read", object=name)), name)
    with contextlib.suppress(errors.StoreFailed):
        written.holdings.refresh()
    written.holdings.refresh()
    assert written.index.aside == {pack_id}


def test_a_damaged_pack_is_named_once(written: Repository, faulty: FaultyStore) -> None:
    lose_indexes(written)
    name = samples.packs_of(written)[0]
    samples.rewrite(written, name, written.store.read(name)[:-1])
    for _ in range(2):
        found = dict(written.scan_chunks(samples.ids_of(written, *range(10))))
        assert sum(isinstance(data, errors.Damaged) for data in found.values()) in (2, 3)
    assert [error.facts["object"] for error in written.holdings.damaged] == [name]
    assert faulty.count("read_range", name) <= 2


def test_a_pack_that_could_not_be_read_is_tried_again(
    written: Repository, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_indexes(written)
    name = samples.packs_of(written)[0]
    faulty.plan("read_range", stores.fail(errors.Damaged("not read", object=name)), name)
    for _ in range(2):
        written.holdings.adopt_all()
        assert [error.facts["object"] for error in written.holdings.damaged] == [name]
    monkeypatch.setattr(holdings, "_AGAIN_SECONDS", 0.0)
    written.holdings.adopt_all()
    assert samples.known(written) == 10 and written.holdings.damaged == []


def test_foreign_files_are_passed_over(written: Repository) -> None:
    for key in ("packs/readme", "indexes/x", "packs/" + "0" * 31):
        written.store.create(key, b"x")
    lose_indexes(written)
    assert written.index.locate(samples.ids_of(written, 1))[samples.ids_of(written, 1)[0]] is not None
    assert written.holdings.damaged == []


def test_what_is_nowhere(written: Repository) -> None:
    with pytest.raises(errors.Damaged, match=r"Chunk [0-9a-f]{64} is missing: no pack"):
        written.read_chunk(bytes(32))


@pytest.mark.parametrize("cut", [0, 1, 20, 31, 32, 55, 56, 57, 1000])
def test_a_pack_that_was_cut(written: Repository, cut: int) -> None:
    name = samples.packs_of(written)[0]
    samples.rewrite(written, name, written.store.read(name)[:cut])
    pack_id = pack.id_of(name)
    assert pack_id is not None
    with pytest.raises(errors.Damaged, match=name):
        pack.read_entries(written.secrets, written.store, pack_id, cut)


def test_a_pack_under_the_name_of_another(written: Repository) -> None:
    one, two = samples.packs_of(written)[:2]
    samples.rewrite(written, one, written.store.read(two))
    lose_indexes(written)
    pack_id = pack.id_of(one)
    assert pack_id is not None
    with pytest.raises(errors.Damaged, match=one):
        written.holdings.adopt(pack_id)
