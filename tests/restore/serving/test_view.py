"""Any bytes of a stored disk: at odd places, in holes, beside damage, from many threads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart import errors, units
from headstart.extents import Extent
from headstart.repository import Repository, layout, tree
from headstart.repository.manifest import Disk
from headstart.restore.serving import view as views
from headstart.restore.serving.pool import Pool
from headstart.restore.serving.view import DiskView, Piece
from headstart.store.local import LocalStore
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.restore import stored

BLOCK = stored.BLOCK
DISK = stored.content(1, 0, 0, 2, 3, 3, 0, 4, *range(10, 40), tail=1000)


def view_of(data: bytes, cache: int = 1 << 20) -> DiskView:
    repo = stores.new_repository()
    return DiskView(repo, stored.store_snapshot(repo, {"disk0": data}).disks[0], cache)


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_bytes_at_any_place(cache: int) -> None:
    view = view_of(DISK, cache)
    chosen = random.Random(1)
    for _ in range(200):
        start = chosen.randrange(len(DISK))
        length = chosen.randrange(min(5 * BLOCK, len(DISK) - start) + 1)
        assert view.read(start, length) == DISK[start : start + length]


def test_many_threads_read_the_same() -> None:
    view = view_of(DISK, cache=4 * BLOCK)
    starts = [random.Random(2).randrange(len(DISK)) for _ in range(200)]
    with ThreadPoolExecutor(8) as threads:
        for start, found in zip(starts, threads.map(lambda start: view.read(start, 1), starts), strict=True):
            assert found == DISK[start : start + 1]


def test_pieces_tell_data_from_holes() -> None:
    view = view_of(DISK)
    assert list(view.pieces(BLOCK // 2, 4 * BLOCK)) == [
        Piece(Extent(BLOCK // 2, BLOCK // 2), True),
        Piece(Extent(BLOCK, 2 * BLOCK), False),
        Piece(Extent(3 * BLOCK, 3 * BLOCK // 2), True),
    ]
    assert sum(piece.extent.length for piece in view.pieces(0, len(DISK))) == len(DISK)


def test_damage_costs_its_range_alone(tmp_path: Path) -> None:
    with stores.new_repository(LocalStore(tmp_path)) as repo:
        disk = stored.store_snapshot(repo, {"disk0": DISK}).disks[0]
        stored.damage_packs(tmp_path)
        view = DiskView(repo, disk)
        damaged = []
        for start in range(0, len(DISK), BLOCK):
            try:
                assert view.read(start, min(BLOCK, len(DISK) - start)) == DISK[start : start + BLOCK]
            except errors.Damaged as error:
                damaged.append((error.facts["start"], error.facts["disk"]))
        assert damaged, "nothing was damaged: the test shows nothing"
        assert all(name == "disk0" for _, name in damaged)
        assert len(damaged) <= 8


def sparse_disk(repo: Repository, size: int, written: list[int]) -> tuple[Disk, dict[int, bytes]]:
    """A disk with these blocks, each of other content."""
    contents = {block: random.Random(block).randbytes(BLOCK) for block in written}
    with repo.writer(stored.ignore) as writer:
        changes: list[tuple[int, bytes | None]] = []
        for block, data in contents.items():
            changes.append((block, repo.chunk_id(data)))
            writer.put(layout.ChunkClass.CONTENT, repo.chunk_id(data), data)
        root = tree.update(repo, writer, None, 0, size, changes)
    return Disk("disk0", size, "raw", root, BLOCK), contents


def test_inner_nodes_of_a_large_disk_are_fetched_once() -> None:
    """6 TiB: a root, 6 nodes below it, 1,536 below those, and 393,216 leaves."""
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    size = 6 * units.TIB
    leaf, groups = layout.TREE_LEAF, layout.TREE_FANOUT // views._LEAVES
    nodes = range(0, 1536, 192)
    written = [
        (node * layout.TREE_FANOUT + group * views._LEAVES) * leaf + 7 for node in nodes for group in range(groups)
    ]
    disk, contents = sparse_disk(repo, size, written)
    repo = stores.reopened(repo)
    repo.holdings.refresh()
    view = DiskView(repo, disk)
    before = store.count("read_range")
    for block in random.Random(1).sample(written, len(written)):
        assert view.read(block * BLOCK, BLOCK) == contents[block]
    # A chunk and a group of leaves for each; and all nodes above them.
    assert store.count("read_range") - before <= 2 * len(written) + len(nodes) + 6 + 1
    before = store.count("read_range")
    assert view.read((max(written) - 5) * BLOCK, 2 * BLOCK) == bytes(2 * BLOCK)
    assert store.count("read_range") == before


def test_leaves_are_fetched_in_groups_and_once() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    leaf = layout.TREE_LEAF
    disk, contents = sparse_disk(repo, 16 * leaf * BLOCK, [number * leaf + 3 for number in range(16)])
    repo.holdings.refresh()
    reopened = stores.reopened(repo)
    reopened.holdings.refresh()
    view = DiskView(reopened, disk)
    before = store.count("read_range")
    list(view.pieces(0, disk.size))
    assert store.count("read_range") - before == 2, "the root, and all leaves"
    before = store.count("read_range")
    assert sum(piece.data for piece in view.pieces(0, disk.size)) == len(contents)
    assert store.count("read_range") == before


def test_a_damaged_leaf_costs_its_range_alone_until_it_is_whole_again(tmp_path: Path) -> None:
    repo = stores.new_repository(LocalStore(tmp_path))
    leaf = layout.TREE_LEAF
    disk, contents = sparse_disk(repo, 4 * leaf * BLOCK, [number * leaf + 3 for number in range(4)])
    [(pack, whole)] = [
        (path, path.read_bytes())
        for path in (tmp_path / "packs").iterdir()
        if path.read_bytes()[layout.HEADER_LENGTH + layout.OBJECT_ID_LENGTH] == layout.ChunkClass.TREE
    ]
    pack.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    view = DiskView(stores.reopened(repo), disk)
    broken = []
    for block, data in contents.items():
        try:
            assert view.read(block * BLOCK, BLOCK) == data
        except errors.Damaged as error:
            broken.append((error.facts["start"], error.facts["length"]))
    [(start, length)] = broken
    assert start in range(0, disk.size, leaf * BLOCK)
    assert length == leaf * BLOCK
    pack.write_bytes(whole)
    for block, data in contents.items():
        assert view.read(block * BLOCK, BLOCK) == data


def test_who_reads_on_and_on_costs_few_requests() -> None:
    """Windows of 2 MiB of 32 chunks, in a request each."""
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    count = 24 * views._WINDOW // BLOCK
    disk, contents = sparse_disk(repo, count * BLOCK, list(range(count)))
    view = DiskView(stores.reopened(repo), disk)
    list(view.pieces(0, disk.size))
    before = store.count("read_range")
    for block, data in contents.items():
        assert view.read(block * BLOCK, BLOCK) == data
    # The first window in pieces; a few lie in two packs.
    assert store.count("read_range") - before <= 24 + views._WINDOW // views._TOGETHER + 4


def test_damage_ahead_is_nobodys_trouble_before_he_comes_to_it(tmp_path: Path) -> None:
    repo = stores.new_repository(LocalStore(tmp_path))
    count = 6 * views._WINDOW // BLOCK
    disk, contents = sparse_disk(repo, count * BLOCK, list(range(count)))
    view = DiskView(stores.reopened(repo), disk)
    list(view.pieces(0, disk.size))
    bad = count - 3
    location = repo.index.find(repo.chunk_id(contents[bad]))
    assert location is not None
    damaged = tmp_path / "packs" / location.pack_id.hex()
    data = bytearray(damaged.read_bytes())
    data[location.frame.offset + 50] ^= 1
    damaged.write_bytes(data)
    for block, expected in contents.items():
        if block == bad:
            with pytest.raises(errors.Damaged) as error:
                view.read(block * BLOCK, BLOCK)
            assert error.value.facts["start"] == bad * BLOCK
        else:
            assert view.read(block * BLOCK, BLOCK) == expected


def test_one_pool_for_several_disks() -> None:
    repo = stores.new_repository()
    disks = stored.store_snapshot(repo, {"a": DISK, "b": DISK[: 9 * BLOCK]}).disks
    pool = Pool(repo, 1 << 20)
    for disk in disks:
        assert DiskView(repo, disk, pool).read(0, disk.size) == DISK[: disk.size]
    assert pool._size <= 1 << 20


def test_reading_into_a_buffer_of_any_length() -> None:
    view = view_of(DISK)
    for start, length in ((0, 0), (5, 1), (BLOCK - 1, 2), (len(DISK) - 1000, 1000), (BLOCK // 2, 9 * BLOCK)):
        buffer = bytearray(b"?" * length)
        view.read_into(memoryview(buffer), start)
        assert buffer == DISK[start : start + length]
