"""Reading chunks back: few requests, bounded memory, no wrong byte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from headstart import errors, units
from headstart.repository import reader
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, noise


@pytest.fixture
def repo(faulty: FaultyStore) -> Repository:
    """220 chunks in one pack of 14 MiB, in the order of their numbers."""
    repo = stores.new_repository(faulty)
    with repo.writer(samples.ignore) as running:
        samples.put(repo, running, {number: noise(number) for number in range(220)})
    repo.missing([])
    return repo


def ids_of(repo: Repository, numbers: range) -> dict[bytes, bytes]:
    return {repo.chunk_id(noise(number)): noise(number) for number in numbers}


def test_neighbours_come_in_one_request(repo: Repository, faulty: FaultyStore) -> None:
    wanted = ids_of(repo, range(220))
    assert dict(repo.read_chunks(wanted)) == wanted
    assert faulty.count("read_range") == 220 * BLOCK // reader._REQUEST_BYTES + 1
    assert faulty.bytes_read < 220 * (BLOCK + 20) + 50_000


def test_small_gaps_are_read_along(repo: Repository, faulty: FaultyStore) -> None:
    wanted = ids_of(repo, range(0, 30, 2))
    assert dict(repo.read_chunks(wanted)) == wanted
    assert faulty.count("read_range") == 1


def test_large_gaps_are_not(repo: Repository, faulty: FaultyStore) -> None:
    wanted = ids_of(repo, range(0, 220, 40))
    before = faulty.bytes_read
    assert dict(repo.read_chunks(wanted)) == wanted
    assert faulty.count("read_range") == len(wanted)
    assert faulty.bytes_read - before == len(wanted) * (BLOCK + 16)


def test_each_chunk_once_whatever_is_asked(repo: Repository) -> None:
    wanted = list(ids_of(repo, range(5)))
    assert len(list(repo.read_chunks(wanted * 3))) == 5
    assert list(repo.read_chunks([])) == []


def test_reads_only_a_little_ahead(repo: Repository, faulty: FaultyStore) -> None:
    before = faulty.bytes_read
    with repo.writer(samples.ignore) as running:
        samples.put(repo, running, {number: noise(number) for number in range(220, 700)})
    reading = repo.read_chunks(ids_of(repo, range(700)))
    next(reading)
    ahead = (max(reader.AHEAD, repo.store.window) + 1) * (reader._REQUEST_BYTES + units.MIB)
    assert faulty.bytes_read - before < ahead < 700 * BLOCK
    reading.close()  # type: ignore[attr-defined]


def test_many_readers_at_once(repo: Repository) -> None:
    wanted = ids_of(repo, range(220))
    with ThreadPoolExecutor(4) as threads:
        for found in [threads.submit(lambda: dict(repo.read_chunks(wanted))) for _ in range(4)]:
            assert found.result() == wanted


def test_damage_is_named_and_the_rest_is_read(repo: Repository) -> None:
    wanted = ids_of(repo, range(20))
    bad = list(wanted)[7]
    location = repo.index.find(bad)
    assert location is not None
    [name] = samples.packs_of(repo)
    samples.rewrite(repo, name, samples.flipped(repo.store.read(name), [location.frame.offset + 100]))
    found = dict(repo.scan_chunks(wanted))
    error = found.pop(bad)
    assert isinstance(error, errors.Damaged)
    assert error.facts == {"object": name, "chunk": bad.hex(), "offset": location.frame.offset, "length": BLOCK + 16}
    assert found == {chunk_id: data for chunk_id, data in wanted.items() if chunk_id != bad}
    with pytest.raises(errors.Damaged, match=f"{name} is damaged: chunk {bad.hex()}"):
        dict(repo.read_chunks(wanted))


def test_a_bad_sector_costs_one_chunk(repo: Repository, faulty: FaultyStore) -> None:
    """The request for all of them fails; those for each one do, but for the bad one."""
    wanted = ids_of(repo, range(10))
    for number in (1, 5):
        faulty.plan("read_range", stores.fail(errors.Damaged("a bad sector", object="packs/x")), number=number)
    found = dict(repo.scan_chunks(wanted))
    assert [isinstance(data, errors.Damaged) for data in found.values()].count(True) == 1


def test_a_missing_pack(repo: Repository, faulty: FaultyStore) -> None:
    [name] = samples.packs_of(repo)
    repo.store.delete(name)
    found = dict(repo.scan_chunks(ids_of(repo, range(10))))
    assert all(isinstance(data, errors.Damaged) and data.facts["object"] == name for data in found.values())
    assert faulty.count("read_range", name) == 1


def test_a_store_that_fails_is_not_damage(repo: Repository, faulty: FaultyStore) -> None:
    faulty.plan("read_range", stores.fail(errors.StoreFailed("connection lost")))
    with pytest.raises(errors.StoreFailed, match="connection lost"):
        list(repo.scan_chunks(ids_of(repo, range(10))))


def test_content_under_the_id_of_another(repo: Repository) -> None:
    """Sealed by somebody with our keys: a bug, or another host that wants us to take its content for ours."""
    wanted = repo.chunk_id(noise(1000))
    with repo.writer(samples.ignore) as running:
        running.put(ChunkClass.CONTENT, wanted, noise(1001))
    with pytest.raises(errors.Damaged, match=wanted.hex()):
        repo.read_chunk(wanted)


def test_a_chunk_in_the_place_of_another(repo: Repository) -> None:
    """Both are sealed by us, in the same pack and of the same length."""
    one, two = list(ids_of(repo, range(2)))
    first, second = repo.index.find(one), repo.index.find(two)
    assert first is not None
    assert second is not None
    [name] = samples.packs_of(repo)
    data = repo.store.read(name)
    length = first.frame.sealed_length
    cut = [data[place.frame.offset : place.frame.offset + length] for place in (first, second)]
    swapped = data[: first.frame.offset] + cut[1] + cut[0] + data[second.frame.offset + length :]
    samples.rewrite(repo, name, swapped)
    for chunk_id in (one, two):
        with pytest.raises(errors.Damaged, match=name):
            repo.read_chunk(chunk_id)
