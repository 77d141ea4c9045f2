"""From a tree to a target: order, windows, damage, memory."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from headstart import errors, repository
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import Repository, layout, tree
from headstart.repository.manifest import Disk
from headstart.restore import image
from headstart.restore.present import Before
from headstart.store.contract import Data
from headstart.store.local import LocalStore
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.restore import stored

BLOCK = stored.BLOCK


class Memory:
    """A :class:`target.Target` that checks that every byte is given exactly once."""

    def __init__(self, size: int) -> None:
        self.place = Path("memory")
        self.notes: tuple[str, ...] = ()
        self.before: Before | None = None
        self.size = size
        self.content = bytearray(b"?" * size)
        self.given: list[Extent] = []
        self.finished = False

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        data = b"".join(pieces)
        self.content[start : start + len(data)] = data
        self.given.append(Extent(start, len(data)))

    def zero(self, extent: Extent) -> None:
        self.content[extent.start : extent.end] = bytes(extent.length)
        self.given.append(extent)

    def finish(self) -> None:
        self.finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def check_given_once(self) -> None:
        position = 0
        for extent in sorted(self.given):
            assert extent.start == position
            position = extent.end
        assert position == self.size


@pytest.fixture
def repo() -> Iterator[Repository]:
    with stores.new_repository() as made:
        yield made


def restored(repo: Repository, disk: Disk, size: int | None = None) -> Memory:
    target = Memory(disk.size if size is None else size)
    image.write(repo, disk, image.survey(repo, disk), target, lambda *_: None)
    target.check_given_once()
    return target


def disk_of(repo: Repository, content: bytes) -> Disk:
    return stored.store_snapshot(repo, {"disk": content}).disks[0]


@pytest.mark.parametrize(
    "content",
    [
        stored.content(1),
        stored.content(0),
        stored.content(0, 0, 0, tail=512),
        stored.content(0, 1, 1, 0, 2, 1, tail=1536),
        stored.content(*range(1, 80), tail=512),
        stored.content(*(seed % 3 for seed in range(100))),
        stored.content(tail=512),
    ],
    ids=["one", "zero", "zero but for the tail", "mixed", "full", "repeated", "less than a block"],
)
def test_content_comes_back(repo: Repository, content: bytes) -> None:
    disk = disk_of(repo, content)
    assert bytes(restored(repo, disk).content) == content


def test_random_disks_are_restored_byte_by_byte(monkeypatch: pytest.MonkeyPatch, repo: Repository) -> None:
    """With windows and batches so small that each disk has many."""
    monkeypatch.setattr(image, "WINDOW", 7)
    monkeypatch.setattr(image, "BATCH", 3 * BLOCK)
    source = random.Random(5)
    for _ in range(10):
        content = stored.content(*source.choices(range(8), k=40), tail=source.choice([0, 512, 4096]))
        assert bytes(restored(repo, disk_of(repo, content)).content) == content


def test_a_larger_target_is_zeroed_to_its_end(repo: Repository) -> None:
    content = stored.content(1, 0, 2, tail=512)
    target = restored(repo, disk_of(repo, content), size=6 * BLOCK)
    assert bytes(target.content) == content.ljust(6 * BLOCK, b"\0")


def test_a_repeated_chunk_is_read_once() -> None:
    store = stores.FaultyStore(MemoryStore())
    with stores.new_repository(store) as repo:
        noise = random.Random(1).randbytes(BLOCK)
        disk = disk_of(repo, noise * 50)
        image.survey(repo, disk)
        before = store.bytes_read
        restored(repo, disk)
        assert store.bytes_read - before < 2 * BLOCK


def test_neighbours_are_written_together(repo: Repository) -> None:
    target = restored(repo, disk_of(repo, stored.content(*range(1, 65))))
    assert sorted(target.given) == [Extent(0, 32 * BLOCK), Extent(32 * BLOCK, 32 * BLOCK)]


def test_a_chunk_that_is_shorter_than_its_block_is_filled_up(repo: Repository) -> None:
    """A disk that grew: what was its short last block is a block in the middle."""
    with repo.writer(stored.ignore) as writer:
        chunk_id = repo.chunk_id(b"short" * 100)
        writer.put(layout.ChunkClass.CONTENT, chunk_id, b"short" * 100)
        root = tree.update(repo, writer, None, 0, 2 * BLOCK, [(0, chunk_id)])
    target = restored(repo, Disk("disk", 2 * BLOCK, "raw", root, BLOCK))
    assert bytes(target.content) == (b"short" * 100).ljust(2 * BLOCK, b"\0")


def test_progress_counts_what_is_written(repo: Repository) -> None:
    seen: list[tuple[str, int, int]] = []
    disk = disk_of(repo, stored.content(1, 0, 1, 2, tail=512))
    image.write(repo, disk, image.survey(repo, disk), Memory(disk.size), lambda *step: seen.append(step))
    assert seen[-1] == ("disk", 3 * BLOCK + 512, 3 * BLOCK + 512)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_damaged_content_is_named_by_disk_and_range(tmp_path: Path) -> None:
    with stores.new_repository(LocalStore(tmp_path)) as repo:
        disk = disk_of(repo, stored.content(0, 0, 5, 0))
    stored.damage_packs(tmp_path)
    with stores.reopened(repo) as repo:
        allocated = image.survey(repo, disk)
        with pytest.raises(errors.Damaged, match=r"^Disk disk, bytes 131072 to 196607: packs/") as damaged:
            image.write(repo, disk, allocated, Memory(disk.size), lambda *_: None)
    assert damaged.value.facts["disk"] == "disk"
    assert (damaged.value.facts["start"], damaged.value.facts["length"]) == (2 * BLOCK, BLOCK)
    assert str(damaged.value.facts["object"]).startswith("packs/")


def test_a_damaged_tree_is_named_by_disk_and_range(tmp_path: Path) -> None:
    """The second leaf of three: what lies below the others is known."""
    with stores.new_repository(LocalStore(tmp_path)) as repo:
        leaf = repo.tree_leaf
        disk = _scattered(repo, [0, leaf + 1, 2 * leaf])
        node = [visit for visit in tree.visit(repo, disk.root, disk.size, lambda _: True) if visit.level == 0][1]
        location = repo.index.find(node.node_id)
        assert location is not None
        pack = tmp_path / "packs" / location.pack_id.hex()
        data = bytearray(pack.read_bytes())
        data[location.frame.offset] ^= 1
        pack.write_bytes(data)
    with stores.reopened(repo) as repo, pytest.raises(errors.Damaged) as damaged:
        image.survey(repo, disk)
    assert (damaged.value.facts["start"], damaged.value.facts["length"]) == (leaf * BLOCK, leaf * BLOCK)


def _scattered(repo: Repository, where: Sequence[int]) -> Disk:
    size = (max(where) + 1) * BLOCK
    with repo.writer(stored.ignore) as writer:
        changes: list[tuple[int, bytes | None]] = []
        for block in where:
            data = b"%d" % block * 100
            changes.append((block, repo.chunk_id(data)))
            writer.put(layout.ChunkClass.CONTENT, repo.chunk_id(data), data)
        root = tree.update(repo, writer, None, 0, size, changes)
    return Disk("disk", size, "raw", root, BLOCK)


def test_what_writing_raises_is_raised(repo: Repository) -> None:
    class Full(Memory):
        def write(self, start: int, pieces: Sequence[Data]) -> None:
            raise errors.NoSpace("full")

    disk = disk_of(repo, stored.content(*range(1, 500)))
    with pytest.raises(errors.NoSpace):
        image.write(repo, disk, image.survey(repo, disk), Full(disk.size), lambda *_: None)


def test_survey_is_the_blocks_that_are_not_zero(repo: Repository) -> None:
    assert image.survey(repo, _scattered(repo, [0, 5, 1025, 300_000])) == Blocks([0, 5, 1025, 300_000])
    assert image.survey(repo, disk_of(repo, stored.content(0, 0))) == Blocks()


def test_a_repository_that_is_open_elsewhere_is_read_too(tmp_path: Path) -> None:
    with stores.new_repository(LocalStore(tmp_path)) as repo:
        disk = disk_of(repo, stored.content(1, 2))
    with repository.open(LocalStore(tmp_path), lambda: stores.PASSWORD) as other:
        assert bytes(restored(other, disk).content) == stored.content(1, 2)
