"""From an image tree to a target: every chunk is read once per window, in the order of the store.

::

    tree      window of 65,536 blocks       {chunk: its blocks}
    store     chunks in the order of the packs, opened and checked by the repository's threads
    batches   2 MiB each, sorted; neighbouring blocks in one request  --->  two threads write

Larger requests are what makes it fast: one for each block takes half as long again.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from headstart import blocks, errors, plain, units
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import Repository, tree
from headstart.repository.manifest import Disk
from headstart.restore.target import Target
from headstart.store.contract import Data

#: ``progress(what, done, total)`` in bytes; called often, from one thread.
Progress = Callable[[str, int, int], None]

#: Blocks whose chunks are read in one go. About 20 MiB of memory.
WINDOW = 1 << 16
#: Bytes handed to a writing thread in one go, in at most so many pieces (IOV_MAX).
BATCH = 2 * units.MIB
MAX_PIECES = 1024
WRITERS = 2
#: Batches on their way to the target: bounds memory.
MAX_BATCHES = 2 * WRITERS
#: Bytes zeroed between two calls of the progress callback.
_ZERO_STEP = 16 * units.GIB

Placed = tuple[int, Data]


def survey(repo: Repository, disk: Disk, lost: Blocks | None = None) -> Blocks:
    """The blocks of the disk that are not zero, nor ``lost``. ``Damaged`` with the range if another part of its tree
    cannot be read."""
    lost = lost or Blocks()
    found = Blocks()
    for visited in tree.visit(repo, disk.root, disk.size, lambda _: True):
        if isinstance(visited.slots, errors.Damaged):
            span = tree.span_of(repo, visited.level + 1) * disk.block_size
            start = visited.index * span
            if start // disk.block_size in lost:
                continue
            raise _damaged(disk, Extent(start, min(span, disk.size - start)), visited.slots)
        if visited.level == 0:
            first = visited.index * len(visited.slots)
            found.update(block for block, chunk_id in enumerate(visited.slots, first) if chunk_id is not None)
    return found - lost


def write(
    repo: Repository,
    disk: Disk,
    allocated: Blocks,
    target: Target,
    progress: Progress,
    lost: Blocks | None = None,
    kept: Blocks | None = None,
) -> None:
    """Write all of the disk but the ``kept`` blocks; ``allocated`` is what ``survey`` found, all else becomes zeroes.
    Raises ``Damaged`` with disk and range, and what the target raises."""
    kept = kept or Blocks()
    _zero_holes(disk, allocated, target, progress)
    total = blocks.total_bytes(allocated, disk.block_size, disk.size)
    done = blocks.total_bytes(kept, disk.block_size, disk.size)
    with _Pipe(disk, target) as pipe:
        for window in batched(chunks(repo, disk, lost), WINDOW):
            places: dict[bytes, list[int]] = {}
            for block, chunk_id in window:
                if block not in kept:
                    places.setdefault(chunk_id, []).append(block)
            for chunk_id, data in _read(repo, disk, places):
                for block in places[chunk_id]:
                    done += pipe.put(block, data)
                progress(disk.name, done, total)


def chunks(repo: Repository, disk: Disk, lost: Blocks | None) -> Iterator[tuple[int, bytes]]:
    """Blocks and their chunks, ascending. What lies between the lost parts: their nodes are not asked for."""
    everything = blocks.everything(disk.size, disk.block_size)
    for first, count in blocks.runs(everything - lost if lost else everything):
        yield from tree.walk(repo, disk.root, disk.size, first, count)


def _zero_holes(disk: Disk, allocated: Blocks, target: Target, progress: Progress) -> None:
    """What holds no data, up to the end of the target, which may be larger than the disk."""
    position = 0
    for extent in itertools.chain(blocks.to_extents(allocated, disk.block_size, disk.size), [Extent(target.size, 1)]):
        while position < extent.start:
            length = min(extent.start - position, _ZERO_STEP)
            target.zero(Extent(position, length))
            position += length
            progress(f"{disk.name} (zeroes)", position, target.size)
        position = extent.end


def _read(repo: Repository, disk: Disk, places: dict[bytes, list[int]]) -> Iterator[tuple[bytes, Data]]:
    for chunk_id, found in repo.scan_chunks(places):
        if isinstance(found, errors.Damaged):
            start = places[chunk_id][0] * disk.block_size
            raise _damaged(disk, Extent(start, min(disk.block_size, disk.size - start)), found)
        yield chunk_id, found


def _damaged(disk: Disk, extent: Extent, error: errors.Damaged) -> errors.Damaged:
    facts = error.facts | {"disk": disk.name, "start": extent.start, "length": extent.length}
    return errors.Damaged(f"Disk {plain.line(disk.name)}, bytes {extent.start} to {extent.end - 1}: {error}", **facts)


class _Pipe:
    """Blocks in any order become few requests, on threads of their own. A context manager: leaving it waits."""

    def __init__(self, disk: Disk, target: Target) -> None:
        self._disk = disk
        self._target = target
        self._batch: list[Placed] = []
        self._limit = min(MAX_PIECES, BATCH // disk.block_size or 1)
        self._running: collections.deque[Future[None]] = collections.deque()
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="restore writer")

    def put(self, block: int, data: Data) -> int:
        """Returns the bytes of the block. Waits while too much is on its way; raises what writing raised."""
        length = blocks.length_of(block, self._disk.block_size, self._disk.size)
        if len(data) != length:  # a chunk may be shorter than its block, and longer than what the disk ends with
            data = bytes(data[:length]).ljust(length, b"\0")
        self._batch.append((block, data))
        if len(self._batch) >= self._limit:
            self._submit()
        return length

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._running.append(self._threads.submit(self._write, batch))
        if len(self._running) >= MAX_BATCHES:
            self._running.popleft().result()

    def _write(self, batch: list[Placed]) -> None:
        for run in _runs(sorted(batch)):
            self._target.write(run[0][0] * self._disk.block_size, [data for _, data in run])

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        with self._threads:
            if kind is None:
                self._submit()
                while self._running:
                    self._running.popleft().result()


def _runs(batch: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Neighbouring blocks together."""
    run: list[Placed] = []
    for block, data in batch:
        if run and run[-1][0] + 1 != block:
            yield run
            run = []
        run.append((block, data))
    if run:
        yield run
