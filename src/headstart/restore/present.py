"""What a place holds already of a disk: shown by reading it and comparing with the ids of the chunks.

::

    allocated blocks   |....stretch....|....stretch....|....stretch....|
    a few are looked at      = =               none          =
    compared           |all of it      |               |all of it      |     an empty device costs little

Nothing is believed that was not read from the disk itself, past the page cache: that a write was told to have been done
is not enough, as it may have failed later.
"""

from __future__ import annotations

import collections
import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from headstart import blocks, units
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.repository import Repository
from headstart.repository.manifest import Disk

#: Blocks that are compared all or not at all, and how many of them are looked at to decide that.
_STRETCH = 4096
_LOOKS = 4
#: Bytes read at a time.
_PIECE = 2 * units.MIB
_PAGE = 4096
_THREADS = 2

Chunk = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Before:
    """A file or device that may hold parts of a disk. ``offset``: where in it a byte of the disk has its place;
    neighbouring allocated blocks lie beside each other. ``likely``: it is not worth a look at a few of them first."""

    descriptor: int
    offset: Callable[[int], int] = lambda position: position
    likely: bool = True


def find(
    repo: Repository,
    disk: Disk,
    chunks: Iterable[Chunk],
    before: Before,
    looked: Callable[[int], None] = lambda _: None,
) -> Blocks:
    """Those of the blocks of ``chunks`` (ascending) that are there as they should be. ``looked`` is called with the
    bytes of the blocks that were asked for."""
    found = Blocks()
    for stretch, there in _compared(repo, disk, chunks, before):
        found |= there
        looked(sum(blocks.length_of(block, disk.block_size, disk.size) for block, _ in stretch))
    return found


def has_all(repo: Repository, disk: Disk, chunks: Iterable[Chunk], before: Before) -> bool:
    """Whether all of the blocks are there; ends with the first that are not."""
    return all(len(there) == len(stretch) for stretch, there in _compared(repo, disk, chunks, before))


def _compared(
    repo: Repository, disk: Disk, chunks: Iterable[Chunk], before: Before
) -> Iterator[tuple[Sequence[Chunk], Blocks]]:
    look = _Look(repo, disk, before)
    running: collections.deque[tuple[Sequence[Chunk], Future[Blocks]]] = collections.deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="restore reader") as threads:
        try:
            for stretch in batched(chunks, _STRETCH):
                running.append((stretch, threads.submit(look.compare, stretch)))
                if len(running) > _THREADS:
                    asked, there = running.popleft()
                    yield asked, there.result()
            while running:
                asked, there = running.popleft()
                yield asked, there.result()
        finally:
            for _, each in running:
                each.cancel()
            look.close()


class _Look:
    """Reads for several threads."""

    def __init__(self, repo: Repository, disk: Disk, before: Before) -> None:
        self._repo = repo
        self._disk = disk
        self._offset = before.offset
        self._likely = before.likely
        self._file = open_past_cache(before.descriptor)

    def compare(self, stretch: Sequence[Chunk]) -> Blocks:
        probes = stretch[:: max(1, len(stretch) // _LOOKS)]
        if not self._likely and not any(self._there([each]) for each in probes):
            return Blocks()
        found = Blocks()
        for run in _runs(stretch, max(1, _PIECE // self._disk.block_size)):
            found |= self._there(run)
        return found

    def _there(self, run: Sequence[Chunk]) -> Blocks:
        """Of neighbouring blocks. What cannot be read is not there."""
        size, first, last = self._disk.block_size, run[0][0], run[-1][0]
        length = (last - first) * size + blocks.length_of(last, size, self._disk.size)
        try:
            data = self._read(self._offset(first * size), length)
        except OSError:
            return Blocks()
        pieces = ((block, chunk_id, data[(block - first) * size :][:size]) for block, chunk_id in run)
        return Blocks(block for block, chunk_id, piece in pieces if piece and self._repo.chunk_id(piece) == chunk_id)

    def _read(self, start: int, length: int) -> memoryview:
        buffer = mmap.mmap(-1, -(-length // _PAGE) * _PAGE)
        done = os.preadv(self._file, [buffer], start)
        return memoryview(buffer)[: min(done, length)]

    def close(self) -> None:
        os.close(self._file)


def open_past_cache(descriptor: int) -> int:
    """The same file or device for reading what is on the disk, in whole pages. Raises ``OSError``."""
    link = f"/proc/self/fd/{descriptor}"
    try:
        return os.open(link, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        # A file system without such reads: what is clean is let go of.
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.open(link, os.O_RDONLY | os.O_CLOEXEC)


def _runs(stretch: Sequence[Chunk], at_most: int) -> Iterator[list[Chunk]]:
    """Neighbouring blocks together."""
    numbered = enumerate(stretch)
    for _, group in itertools.groupby(numbered, lambda each: each[1][0] - each[0]):
        yield from batched((chunk for _, chunk in group), at_most)
