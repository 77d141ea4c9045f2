"""From a reader into the repository: cut into blocks, recognise zeroes, hash, compress, seal, pack.

::

    reader's thread      pieces of 1 MiB  --->  workers: hash, compress, seal  --->  writer: packs
    (the caller's)       released by the worker that is done with one               tokens when durable
                         short ones are gathered: what is stored together becomes smaller, for less

Hashing, compressing and sealing release the interpreter's lock, so that the workers use every core.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

from headstart.extents import Extent
from headstart.reading import Piece, Reader
from headstart.repository.layout import FRAME_SIZE, ChunkClass
from headstart.repository.repo import Repository
from headstart.repository.writer import Cut, Writer

WORKERS = min(8, os.cpu_count() or 1)
#: Pieces at work or waiting for a worker, at most. While the caller's thread waits here it takes nothing from the
#: reader, so as many as a reader over NBD has buffers: that bounds the memory too.
_AHEAD = 12
#: Bytes of a block that are looked at before all of it is.
_GLANCE = 64


class Stored(NamedTuple):
    """Content of a block and the chunk that holds it; None is zeroes."""

    disk: str
    block: int
    chunk: bytes | None


class _Part(NamedTuple):
    disk: str
    block: int


class Pipeline:
    """Feeds one writer. A context manager: leaving it waits for the workers, and settles unless something is wrong."""

    def __init__(self, repo: Repository, writer: Writer[Stored], zeroes: Callable[[list[Stored]], None]) -> None:
        """``zeroes`` is called with blocks that need no chunk, from any thread; the writer's own
        callback gets the others once they are durable."""
        self._repo = repo
        self._writer = writer
        self._zeroes = zeroes
        self._zero = bytes(repo.block_size)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="block")
        self._flying: deque[Future[None]] = deque()
        self._parts: list[_Part] = []
        self._gathered = bytearray()

    def copy(
        self, disk: str, reader: Reader, extents: Iterable[Extent], progress: Callable[[int], None] = lambda count: None
    ) -> int:
        """Store what ``reader`` has in ``extents`` (whole blocks). Returns the bytes read.

        The last blocks may not even be with the writer, but wait for others to be stored together with: ``settle``,
        then flush the writer."""
        total = 0
        for piece in reader.read(extents):
            self._submit(disk, piece)
            total += piece.extent.length
            progress(piece.extent.length)
        self._land()
        return total

    def _submit(self, disk: str, piece: Piece) -> None:
        """The piece is released when it is stored, and also when that comes to nothing."""
        if piece.data is None:
            # Costs nothing, and holds no buffer: such pieces must not make the reader wait with answers unread.
            piece.release()
            self._zeroes([Stored(disk, block, None) for block in self._blocks(piece.extent)])
            return
        if piece.extent.length < FRAME_SIZE:
            self._gather(disk, piece)
            return
        try:
            self._wait()
        except BaseException:
            piece.release()
            raise
        parts = [_Part(disk, block) for block in self._blocks(piece.extent)]
        storing = self._pool.submit(self._store_piece, parts, piece.data, piece.release)
        storing.add_done_callback(lambda done: piece.release() if done.cancelled() else None)
        self._flying.append(storing)

    def _wait(self) -> None:
        """Until a worker can be had for one more; raises what went wrong before."""
        while len(self._flying) >= _AHEAD or (self._flying and self._flying[0].done()):
            self._flying.popleft().result()

    def _blocks(self, extent: Extent) -> range:
        size = self._repo.block_size
        return range(extent.start // size, -(-extent.end // size))

    def _gather(self, disk: str, piece: Piece) -> None:
        """Only whole blocks can stand before others."""
        assert piece.data is not None
        self._gathered += piece.data
        piece.release()
        self._parts += [_Part(disk, block) for block in self._blocks(piece.extent)]
        if len(self._gathered) >= FRAME_SIZE or len(self._gathered) % self._repo.block_size:
            self._submit_gathered()

    def _submit_gathered(self) -> None:
        if self._parts:
            self._wait()
            parts, gathered = self._parts, memoryview(self._gathered)
            self._parts, self._gathered = [], bytearray()
            self._flying.append(self._pool.submit(self._store, parts, gathered))

    def settle(self) -> None:
        """Wait until everything that was read is with the writer; raises what went wrong there."""
        self._submit_gathered()
        self._land()

    def _land(self) -> None:
        while self._flying:
            self._flying.popleft().result()

    def _store_piece(self, parts: Sequence[_Part], data: memoryview, release: Callable[[], None]) -> None:
        try:
            self._store(parts, data)
        finally:
            release()

    def _store(self, parts: Sequence[_Part], data: memoryview) -> None:
        """``data`` is the content of these blocks, one after the other; the last may be short."""
        size = self._repo.block_size
        zeroes: list[Stored] = []
        cuts: list[Cut[Stored]] = []
        for start, part in zip(range(0, len(data), size), parts, strict=True):
            content = data[start : start + size]
            if self._is_zero(content):
                zeroes.append(Stored(*part, None))
            else:
                chunk = self._repo.chunk_id(content)
                cuts.append(Cut(chunk, start, len(content), Stored(*part, chunk)))
        if cuts:
            self._writer.put_many(ChunkClass.CONTENT, data, cuts)
        if zeroes:
            self._zeroes(zeroes)

    def _is_zero(self, data: memoryview) -> bool:
        """A comparison of bytes with bytes is the fastest there is, but copies; most content differs at its start."""
        return not any(data[:_GLANCE]) and bytes(data) == self._zero[: len(data)]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
