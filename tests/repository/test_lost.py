"""Packs that the store acknowledged and has lost."""

from __future__ import annotations

import time

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import layout, lost
from headstart.repository.layout import ChunkClass
from headstart.repository.loss import Hurt, Loss
from headstart.repository.lost import Lost
from headstart.repository.manifest import Disk
from headstart.repository.repo import Repository
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise


@pytest.fixture
def repo(faulty: FaultyStore) -> Repository:
    return stores.new_repository(faulty)


def put(repo: Repository, *numbers: int) -> tuple[str, list[bytes]]:
    """One pack, and the chunks in it."""
    with repo.writer(samples.ignore) as running:
        ids = samples.put(repo, running, {number: noise(number) for number in numbers})
    [pack_id] = running.packs
    return pack_id, list(ids.values())


def test_nothing_is_lost(repo: Repository, faulty: FaultyStore) -> None:
    _, ids = put(repo, 1, 2)
    put(repo, 3)
    before = len(faulty.requests)
    assert repo.drop_lost() == set()
    assert len(faulty.requests) - before == 2, "of what is doomed and of the packs, and nothing else"
    assert all(chunk_id in repo for chunk_id in ids)


def test_nothing_is_lost_of_what_another_process_put(repo: Repository) -> None:
    put(repo, *range(5))
    put(repo, 9)
    assert stores.reopened(repo).drop_lost() == set()


@pytest.mark.parametrize("how", ["gone", "cut", "longer"])
def test_a_lost_pack_is_stored_again(repo: Repository, faulty: FaultyStore, how: str) -> None:
    _, others = put(repo, 1, 2)
    lost, ids = put(repo, 3, 4)
    key = layout.PACKS + lost
    data = faulty.read(key)
    faulty.delete(key)
    if how != "gone":
        faulty.create(key, data[:-1] if how == "cut" else data + b"x")
    for one in (repo, stores.reopened(repo)):
        assert one.drop_lost() == {lost}
        assert one.missing([*others, *ids]) == ids
        assert one.drop_lost() == set()
    again, _ = put(repo, 1, 3, 4)
    assert again != lost
    assert dict(repo.read_chunks(ids)) == dict(zip(ids, (noise(3), noise(4)), strict=True))


def test_what_is_in_another_pack_as_well_is_not_missing(repo: Repository, faulty: FaultyStore) -> None:
    other = stores.reopened(repo)
    with other.writer(samples.ignore) as behind:  # knows nothing of the other's
        lost, ids = put(repo, 1, 2)
        samples.put(other, behind, {1: noise(1)})
    repo.holdings.refresh()
    faulty.delete(layout.PACKS + lost)
    assert repo.drop_lost() == {lost}
    assert repo.missing(ids) == ids[1:]


def test_many_lost_chunks_are_in_nobodys_way(repo: Repository, faulty: FaultyStore) -> None:
    """Also where the table grows with their places in it."""
    contents = {number: number.to_bytes(4, "little") for number in range(20_000)}
    with repo.writer(samples.ignore) as running:
        samples.put(repo, running, contents)
    for pack_id in running.packs:
        faulty.delete(layout.PACKS + pack_id)
    assert len(repo.drop_lost()) == len(running.packs) == 3
    began = time.monotonic()
    with repo.writer(samples.ignore) as again:
        ids = samples.put(repo, again, contents)
    assert not repo.missing(ids.values()) and len(again.packs) == 3
    assert time.monotonic() - began < 20


def test_a_store_that_is_not_mounted_has_lost_nothing(repo: Repository, faulty: FaultyStore) -> None:
    _, ids = put(repo, 1, 2)
    for key, _ in list(faulty.list("")):
        faulty.delete(key)
    with pytest.raises(errors.StoreFailed, match="mounted"):
        repo.drop_lost()
    assert not repo.missing(ids)


def test_chunks_that_compress_to_nothing_fill_many_packs(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PACK_CHUNKS", 100)
    with repo.writer(samples.ignore) as running:
        for number in range(1000):
            data = number.to_bytes(4, "little") * 16000
            running.put(ChunkClass.CONTENT, repo.chunk_id(data), data)
    assert len(running.packs) == 10


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_what_another_pack_has_as_well_is_read_there(repo: Repository, faulty: FaultyStore, how: str) -> None:
    other = stores.reopened(repo)
    with other.writer(samples.ignore) as behind:  # knows nothing of the other's
        [one] = [put(repo, *range(20))]
        samples.put(other, behind, {number: noise(number) for number in range(20)})
    for pack_id in (one[0], behind.packs[0]):
        key = layout.PACKS + pack_id
        data = faulty.read(key)
        faulty.delete(key)
        if how == "damaged":
            faulty.create(key, data[:50] + bytes(1000) + data[1050:])
        again = stores.reopened(repo)
        assert dict(again.read_chunks(one[1])) == {each: noise(number) for number, each in enumerate(one[1])}
        assert again.read_chunk(one[1][0]) == noise(0)
        if how == "damaged":
            faulty.delete(key)
        faulty.create(key, data)


IMAGE = Image(9 * BLOCK - 512, {number: noise(number) for number in (0, 3, 8)})


def pack_of(repo: Repository, chunk_id: bytes) -> bytes:
    location = repo.index.find(chunk_id)
    assert location is not None
    return location.pack_id


def lose(repo: Repository, loss_id: str, copies: dict[bytes, frozenset[bytes] | None]) -> None:
    """As a repair notes it."""
    repo.holdings.lose(Loss(loss_id * 16, 1.0, copies))
    repo.holdings.refresh()


def test_a_block_whose_copy_is_not_believed_in_is_copied_anew(repo: Repository, faulty: FaultyStore) -> None:
    """Unreadable it is only where the copy is bad indeed."""
    [disk] = samples.add_snapshot(repo, {"a": IMAGE}).disks
    assert lost.of_disk(repo, disk) == Lost(Blocks(), nodes=False)
    chunk = repo.chunk_id(noise(3))
    pack_id = pack_of(repo, chunk)
    lose(repo, "ab", {pack_id: frozenset({chunk})})
    assert lost.of_disk(repo, disk) == Lost(Blocks([3]), nodes=False)
    assert lost.unreadable(repo, disk) == Blocks()
    faulty.delete(layout.PACKS + pack_id.hex())
    assert lost.unreadable(repo, disk) == Blocks([3])


@pytest.mark.parametrize("how", ["doubted", "gone"])
def test_below_a_lost_node_everything_is_lost(repo: Repository, faulty: FaultyStore, how: str) -> None:
    """If it can be read all the same, nothing but the node."""
    made = samples.add_snapshot(repo, {"a": IMAGE})
    [disk] = made.disks
    assert disk.root is not None
    pack_id = pack_of(repo, disk.root)
    lose(repo, "ab", {pack_id: None})
    if how == "gone":
        faulty.delete(layout.PACKS + pack_id.hex())
        repo = stores.reopened(repo)
        assert lost.of_disk(repo, disk) == Lost(Blocks(range(9)), nodes=True)
        assert lost.unreadable(repo, disk) == Blocks(range(9))
        [hurt, *_] = lost.hurt(repo, made)
        assert hurt.extents == (Extent(0, disk.size),)
    else:
        found = lost.of_disk(repo, disk)
        assert found.nodes and not found.blocks
        assert lost.unreadable(repo, disk) == Blocks()


def test_what_no_backup_has_healed_since_is_still_hurt(repo: Repository) -> None:
    assert lost.still_hurt(repo) == {}
    made = samples.add_snapshot(repo, {"a": IMAGE})
    chunk = repo.chunk_id(noise(3))
    its = Hurt(made.id, made.vm, "a", (Extent(3 * BLOCK, BLOCK),), (chunk,))
    many = Hurt(made.id, made.vm, "b", (), None)
    repo.holdings.lose(Loss("ab" * 16, 1.0, {pack_of(repo, chunk): frozenset({chunk})}, hurt=(its, many)))
    assert lost.still_hurt(repo) == {made.id: [its, many]}
    put(repo, 3)
    assert lost.still_hurt(repo) == {made.id: [many]}, "of too many chunks to be listed nobody knows"


def walks(repo: Repository, faulty: FaultyStore, disk: Disk) -> bool:
    """Whether it looks at the tree of a disk, of which nothing is lost."""
    before = faulty.count("read_range")
    assert lost.of_disk(repo, disk) == Lost(Blocks(), nodes=False)
    return faulty.count("read_range") > before


def test_a_tree_that_is_whole_is_walked_once(repo: Repository, faulty: FaultyStore) -> None:
    """While something is lost for good: the snapshots of a VM that is no more."""
    gone, _ = put(repo, 1)
    [disk] = samples.add_snapshot(repo, {"a": IMAGE}).disks
    assert not walks(repo, faulty, disk)
    lose(repo, "ab", {bytes.fromhex(gone): None})
    assert walks(repo, faulty, disk)
    assert not walks(repo, faulty, disk)
    assert walks(stores.reopened(repo), faulty, disk)
    chunk = repo.chunk_id(noise(3))
    lose(repo, "cd", {pack_of(repo, chunk): frozenset({chunk})})
    assert lost.of_disk(repo, disk) == Lost(Blocks([3]), nodes=False)


def test_once_all_is_healed_no_tree_is_walked(repo: Repository, faulty: FaultyStore) -> None:
    made = samples.add_snapshot(repo, {"a": IMAGE})
    [disk] = made.disks
    chunk = repo.chunk_id(noise(3))
    its = Hurt(made.id, made.vm, "a", (Extent(3 * BLOCK, BLOCK),), (chunk,))
    repo.holdings.lose(Loss("ab" * 16, 1.0, {pack_of(repo, chunk): frozenset({chunk})}, hurt=(its,)))
    assert lost.of_disk(repo, disk) == Lost(Blocks([3]), nodes=False)
    put(repo, 3)
    for each in (repo, stores.reopened(repo)):
        assert not walks(each, faulty, disk)
