"""Blocks on their way from a reader into the repository."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from headstart import errors, extents
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece
from headstart.repository import layout
from headstart.repository.repo import Repository
from headstart.repository.writer import Writer
from headstart.store.memory import MemoryStore
from headstart.transfer.pipeline import Pipeline, Stored
from headstart.units import KIB, MIB
from tests.kit.stores import FaultyStore, fail, hang, new_repository, reopened

BLOCK = 64 * KIB
PACKS = "packs/"


class Disk:
    """A reader of bytes in memory. What it hands over is spoilt at its release, and releases are counted."""

    def __init__(self, content: bytes, *, holes: bool = True, breaks_at: int | None = None) -> None:
        self.content = content
        self.size = len(content)
        self._holes = holes
        self._breaks_at = breaks_at
        self.handed: list[Extent] = []
        self.released: Counter[Extent] = Counter()
        self._lock = threading.Lock()

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        for extent in wanted:
            for part in extents.split(extent, PIECE_SIZE):
                if self._breaks_at is not None and part.end > self._breaks_at:
                    raise errors.PointLost("it broke")
                self.handed.append(part)
                yield self._piece(part)

    def _piece(self, part: Extent) -> Piece:
        memory = bytearray(self.content[part.start : part.end])

        def release() -> None:
            self._count(part)
            memory[:] = b"\xdb" * len(memory)

        return Piece(part, None if self._holes and not any(memory) else memoryview(memory), release)

    def _count(self, part: Extent) -> None:
        with self._lock:
            self.released[part] += 1

    def assert_released(self) -> None:
        assert self.released == Counter(self.handed)


class Unlike(Disk):
    """Large, and no two blocks of it are equal."""

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self.size = size
        self._random = random.Random(1)

    def _piece(self, part: Extent) -> Piece:
        return Piece(part, memoryview(self._random.randbytes(part.length)), lambda: self._count(part))


class Run:
    """A pipeline into a repository, and what it says of the blocks."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.zeroes: list[Stored] = []
        self.durable: list[Stored] = []

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        with (
            self.repo.writer(self.durable.extend) as self.writer,
            Pipeline(self.repo, self.writer, self.zeroes.extend) as pipeline,
        ):
            yield pipeline

    def copy(self, disk: Disk, *wanted: Extent) -> int:
        with self.pipeline() as pipeline:
            return pipeline.copy("disk", disk, wanted or [Extent(0, disk.size)])

    def assert_holds(self, disk: Disk, repo: Repository) -> None:
        """Of each block it was told once what it is, and that can be read."""
        told = {each.block: each.chunk for each in (*self.zeroes, *self.durable)}
        assert len(told) == len(self.zeroes) + len(self.durable)
        for block, chunk in told.items():
            expected = disk.content[block * BLOCK : (block + 1) * BLOCK]
            assert (bytes(len(expected)) if chunk is None else repo.read_chunk(chunk)) == expected
        assert all(each.chunk is None for each in self.zeroes)
        assert all(each.chunk is not None for each in self.durable)
        assert {each.disk for each in (*self.zeroes, *self.durable)} <= {"disk"}


def blocks_of(stored: Iterable[Stored]) -> list[int]:
    return sorted(each.block for each in stored)


def content(size: int, *zeroes: int) -> bytes:
    """Random bytes, except for some blocks."""
    data = bytearray(random.Random(size).randbytes(size))
    for block in zeroes:
        length = len(data[block * BLOCK : (block + 1) * BLOCK])
        data[block * BLOCK : block * BLOCK + length] = bytes(length)
    return bytes(data)


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def run(store: FaultyStore) -> Run:
    return Run(new_repository(store))


@pytest.mark.parametrize("holes", [True, False], ids=["told as a hole", "read as zeroes"])
def test_zeroes_need_no_chunk(run: Run, holes: bool) -> None:
    """A whole piece of zeroes, and single blocks."""
    disk = Disk(content(4 * MIB, *range(16, 32), 3, 40), holes=holes)
    assert run.copy(disk) == 4 * MIB
    assert blocks_of(run.zeroes) == [3, *range(16, 32), 40]
    assert len(run.durable) == 64 - 18
    run.assert_holds(disk, reopened(run.repo))
    disk.assert_released()


def test_almost_zeroes_are_none(run: Run) -> None:
    disk = Disk(bytes(BLOCK - 1) + b"\1" + b"\1" + bytes(BLOCK - 1) + bytes(BLOCK))
    run.copy(disk)
    assert blocks_of(run.zeroes) == [2]
    assert blocks_of(run.durable) == [0, 1]
    run.assert_holds(disk, reopened(run.repo))


@pytest.mark.parametrize("size", [1, 512, BLOCK - 1, BLOCK, BLOCK + 512, MIB + 1, 3 * MIB + 777])
def test_the_last_block_may_be_short(run: Run, size: int) -> None:
    disk = Disk(content(size))
    assert run.copy(disk) == size
    assert blocks_of(run.durable) == list(range(-(-size // BLOCK)))
    run.assert_holds(disk, reopened(run.repo))


@pytest.mark.parametrize("holes", [True, False])
def test_a_short_last_block_of_zeroes_needs_no_chunk(run: Run, holes: bool) -> None:
    disk = Disk(content(MIB) + bytes(512), holes=holes)
    run.copy(disk)
    assert blocks_of(run.zeroes) == [16]


def test_only_what_is_wanted_is_copied(run: Run) -> None:
    disk = Disk(content(3 * MIB))
    assert run.copy(disk, Extent(2 * BLOCK, BLOCK), Extent(15 * BLOCK, 3 * BLOCK)) == 4 * BLOCK
    assert blocks_of(run.durable) == [2, 15, 16, 17]
    run.assert_holds(disk, reopened(run.repo))
    disk.assert_released()


def test_nothing_wanted_is_nothing_copied(run: Run, store: FaultyStore) -> None:
    with run.pipeline() as pipeline:
        assert pipeline.copy("disk", Disk(content(MIB)), []) == 0
    assert store.count("create", PACKS) == 0


def test_progress_is_told_in_bytes(run: Run) -> None:
    told: list[int] = []
    disk = Disk(content(3 * MIB + 512, *range(16, 32)))
    with run.pipeline() as pipeline:
        assert pipeline.copy("disk", disk, [Extent(0, disk.size)], told.append) == sum(told) == disk.size


def test_equal_blocks_are_stored_once(run: Run, store: FaultyStore) -> None:
    same = content(BLOCK)
    disk = Disk(same * 200)
    run.copy(disk)
    assert blocks_of(run.durable) == list(range(200))
    assert len({each.chunk for each in run.durable}) == 1
    assert run.writer.stored_bytes < 2 * BLOCK
    run.assert_holds(disk, reopened(run.repo))


def test_what_is_stored_already_is_not_stored_again(run: Run, store: FaultyStore) -> None:
    disk = Disk(content(2 * MIB, 5))
    run.copy(disk)
    packs = store.count("create", PACKS)
    again = Run(reopened(run.repo))
    assert again.copy(disk) == 2 * MIB
    assert store.count("create", PACKS) == packs
    assert again.writer.packs == []
    assert blocks_of(again.durable) == blocks_of(run.durable)
    again.assert_holds(disk, again.repo)


def test_several_disks_go_through_one_pipeline(run: Run) -> None:
    disks = {"one": Disk(content(MIB)), "other": Disk(content(2 * MIB, 7))}
    with run.pipeline() as pipeline:
        for name, disk in disks.items():
            pipeline.copy(name, disk, [Extent(0, disk.size)])
    for name, disk in disks.items():
        blocks = blocks_of(each for each in (*run.durable, *run.zeroes) if each.disk == name)
        assert blocks == list(range(disk.size // BLOCK))
        disk.assert_released()


def test_nothing_is_durable_before_the_store_has_it(run: Run, store: FaultyStore) -> None:
    until = threading.Event()
    store.plan("create", hang(until), PACKS)
    disk = Disk(content(MIB, 3))
    with run.pipeline() as pipeline:
        pipeline.copy("disk", disk, [Extent(0, disk.size)])
        # All is read and let go of, and nothing is promised but zeroes.
        disk.assert_released()
        assert blocks_of(run.zeroes) == [3]
        assert run.durable == []
        until.set()
        run.writer.flush()
        assert len(run.durable) == 15
    assert store.count("create", PACKS) == 1


def test_what_the_store_refuses_is_never_durable(run: Run, store: FaultyStore) -> None:
    store.plan("create", fail(errors.StoreFailed("no")), PACKS)
    disk = Disk(content(MIB, 3))
    with pytest.raises(errors.StoreFailed):
        run.copy(disk)
    assert run.durable == []
    disk.assert_released()


def test_a_store_that_fails_in_the_middle_ends_the_copy(run: Run, store: FaultyStore) -> None:
    """The first pack counts, the reader is not read to its end for nothing, and no buffer is lost."""
    store.plan("create", fail(errors.StoreFailed("no")), PACKS, number=2)
    disk = Unlike(512 * MIB)
    with pytest.raises(errors.StoreFailed):
        run.copy(disk)
    assert 0 < len(run.durable) * BLOCK < layout.PACK_SIZE
    assert len(disk.handed) < disk.size // PIECE_SIZE
    disk.assert_released()


class Broken(Exception):
    """What a worker fails of."""


def test_what_goes_wrong_in_a_worker_surfaces(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    number = iter(range(1000))

    def chunk_id(data: bytes) -> bytes:
        if next(number) == 20:
            raise Broken
        return real(data)

    real = run.repo.chunk_id
    monkeypatch.setattr(run.repo, "chunk_id", chunk_id)
    disk = Disk(content(4 * MIB))
    with pytest.raises(Broken):
        run.copy(disk)
    disk.assert_released()


def test_what_goes_wrong_with_zeroes_surfaces(run: Run) -> None:
    def refuse(_: list[Stored]) -> None:
        raise Broken

    disk = Disk(content(MIB, 3))
    writer: Writer[Stored] = run.repo.writer(run.durable.extend)
    with pytest.raises(Broken), writer, Pipeline(run.repo, writer, refuse) as pipeline:
        pipeline.copy("disk", disk, [Extent(0, disk.size)])
    assert run.durable == []
    disk.assert_released()


def test_a_reader_that_fails_surfaces(run: Run) -> None:
    disk = Disk(content(8 * MIB), breaks_at=5 * MIB)
    with pytest.raises(errors.PointLost):
        run.copy(disk)
    disk.assert_released()


def test_a_progress_that_raises_surfaces(run: Run) -> None:
    """A user who interrupts, say."""
    disk = Disk(content(8 * MIB))

    def interrupt(_: int) -> None:
        raise errors.Interrupted("by the user")

    with pytest.raises(errors.Interrupted), run.pipeline() as pipeline:
        pipeline.copy("disk", disk, [Extent(0, disk.size)], interrupt)
    disk.assert_released()
