"""From a reader into the repository: cut into blocks, recognise zeroes, hash, compress, seal, pack.

::

    reader's thread      pieces of 1 MiB  --->  workers: hash, compress, seal  --->  writer: packs
    (the caller's)       released by the worker that is done with one               tokens when durable

Hashing, compressing and sealing release the interpreter's lock, so that the workers use every core.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from headstart.extents import Extent
from headstart.reading import Piece, Reader
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.repository.writer import Writer

WORKERS = min(8, os.cpu_count() or 1)
#: Pieces at work or waiting for a worker, at most. While the caller's thread waits here it takes nothing from the
#: reader, so as many as a reader over NBD has buffers: that bounds the memory too.
_AHEAD = 12
#: Bytes of a block that are looked at before all of it is.
_GLANCE = 64


@dataclass(frozen=True, slots=True)
class Stored:
    """Content of a block and the chunk that holds it; None is zeroes."""

    disk: str
    block: int
    chunk: bytes | None


class Pipeline:
    """Feeds one writer. A context manager: leaving it waits for the workers."""

    def __init__(self, repo: Repository, writer: Writer[Stored], zeroes: Callable[[list[Stored]], None]) -> None:
        """``zeroes`` is called with blocks that need no chunk, from any thread; the writer's own
        callback gets the others once they are durable."""
        self._repo = repo
        self._writer = writer
        self._zeroes = zeroes
        self._zero = bytes(repo.block_size)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="block")
        self._flying: deque[Future[None]] = deque()

    def copy(
        self, disk: str, reader: Reader, extents: Iterable[Extent], progress: Callable[[int], None] = lambda count: None
    ) -> int:
        """Store what ``reader`` has in ``extents`` (whole blocks). Returns the bytes read.

        The last blocks may not be durable yet: flush the writer."""
        total = 0
        for piece in reader.read(extents):
            self._submit(disk, piece)
            total += piece.extent.length
            progress(piece.extent.length)
        self.settle()
        return total

    def _submit(self, disk: str, piece: Piece) -> None:
        """The piece is released when it is stored, and also when that comes to nothing."""
        if piece.data is None:
            # Costs nothing, and holds no buffer: such pieces must not make the reader wait with answers unread.
            self._store(disk, piece)
            return
        try:
            while len(self._flying) >= _AHEAD or (self._flying and self._flying[0].done()):
                self._flying.popleft().result()
        except BaseException:
            piece.release()
            raise
        storing = self._pool.submit(self._store, disk, piece)
        storing.add_done_callback(lambda done: piece.release() if done.cancelled() else None)
        self._flying.append(storing)

    def settle(self) -> None:
        """Wait until everything that was read is with the writer; raises what went wrong there."""
        while self._flying:
            self._flying.popleft().result()

    def _store(self, disk: str, piece: Piece) -> None:
        try:
            self._store_blocks(disk, piece)
        finally:
            piece.release()

    def _store_blocks(self, disk: str, piece: Piece) -> None:
        size = self._repo.block_size
        zeroes: list[Stored] = []
        for start in range(piece.extent.start, piece.extent.end, size):
            block = start // size
            data = _block(piece, start, size)
            if data is None or self._is_zero(data):
                zeroes.append(Stored(disk, block, None))
            else:
                chunk = self._repo.chunk_id(data)
                self._writer.put(ChunkClass.CONTENT, chunk, data, Stored(disk, block, chunk))
        if zeroes:
            self._zeroes(zeroes)

    def _is_zero(self, data: memoryview) -> bool:
        """A comparison of bytes with bytes is the fastest there is, but copies; most content differs at its start."""
        return not any(data[:_GLANCE]) and bytes(data) == self._zero[: len(data)]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *details: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _block(piece: Piece, start: int, size: int) -> memoryview | None:
    offset = start - piece.extent.start
    return None if piece.data is None else piece.data[offset : offset + size]
