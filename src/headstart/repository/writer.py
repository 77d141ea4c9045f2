"""Adding chunks: deduplicate, compress, seal into packs, upload in the background.

::

    put (any thread)                          the writer's own thread
    known? -> its token to the queue    --->  on_durable(tokens)
    else compress, reserve a slot,
    seal into it; a full pack is queued --->  create in the store, enter into the index, on_durable(tokens)
"""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from headstart import errors
from headstart.repository import codec, layout, objects, pack
from headstart.repository.index import Index
from headstart.repository.keys import Secrets
from headstart.repository.pack import OpenPack, Slot
from headstart.store.contract import Data, Store

Token = TypeVar("Token")

#: Packs that exist at a time, open or on their way into the store: one is filled while another one is written. Bounds
#: memory: 64 MiB.
MAX_PACKS = 2
#: Tokens of chunks that were stored already are reported in batches of this many.
_KNOWN_BATCH = 256
#: After so many new chunks an index object is written without waiting for ``flush``.
_INDEX_CHUNKS = 1 << 17


@dataclass(frozen=True, slots=True)
class _Known(Generic[Token]):
    """Tokens whose chunks were durable already."""

    tokens: list[Token]


class Writer(Generic[Token]):
    """One run of additions. ``put`` may be called from several threads at once.

    ``on_durable(tokens)`` is called on the writer's own thread only, with the tokens of chunks that are now durable in
    the store, never before. It should be quick; what it raises counts as a failure of the writer.

    After a failure nothing further is reported durable, and every ``put`` and ``flush`` raises it. Leaving the block
    normally flushes; leaving it with an exception abandons what is not yet in the store.
    """

    def __init__(self, secrets: Secrets, store: Store, index: Index, on_durable: Callable[[list[Token]], None]) -> None:
        self._secrets = secrets
        self._store = store
        self._index = index
        self._on_durable = on_durable
        self._changed = threading.Condition()
        self._open: dict[layout.ChunkClass, OpenPack] = {}
        self._pending: dict[bytes, list[Token]] = {}  # by chunk that is not durable yet
        self._known: list[Token] = []
        self._buffers: list[mmap.mmap] = []
        self._packs_alive = 0
        self._jobs_alive = 0
        self._jobs: queue.SimpleQueue[OpenPack | _Known[Token] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="pack writer", daemon=True)
        #: Bytes added to the store.
        self.stored_bytes = 0
        #: Ids of the packs that are durable in the store, in hex.
        self.packs: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._fail(errors.HeadstartError("The writer is closed."))
            self._jobs.put(None)
            self._thread.join()
            self._buffers.clear()

    def put(self, chunk_class: layout.ChunkClass, chunk_id: bytes, data: Data, token: Token | None = None) -> int:
        """Add a chunk; ``data`` is the caller's again when this returns. ``token`` None: report nothing.

        Returns the bytes that this adds to the store: 0 for what is stored, or on its way, already.
        Waits while too many packs are on their way into the store.
        """
        if len(data) > layout.MAX_CHUNK_LENGTH:
            raise ValueError(f"a chunk of {len(data)} bytes")
        if self._joined(chunk_id, token):
            return 0
        try:
            flags, body = codec.shrink(data)
            slot = self._reserve(chunk_class, chunk_id, len(body), len(data), flags)
            slot.fill(body)
        except BaseException as error:
            self._fail(error)
            raise
        self._filled(slot)
        return slot.length

    def flush(self) -> None:
        """Make everything durable that was put, report it, and list it in an index object.

        No ``put`` may run at the same time.
        """
        with self._changed:
            for chunk_class in list(self._open):
                self._close(chunk_class)
            self._queue_known()
            self._changed.wait_for(lambda: self._failure or not (self._packs_alive or self._jobs_alive))
            self._check()
        self.stored_bytes += self._index.write()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()

    def _joined(self, chunk_id: bytes, token: Token | None) -> bool:
        """Whether the chunk is durable or on its way. If not, it is the caller's to bring on its way."""
        tokens = [] if token is None else [token]
        with self._changed:
            self._check()
            if chunk_id in self._pending:
                self._pending[chunk_id] += tokens
                return True
            if chunk_id not in self._index:
                self._pending[chunk_id] = tokens
                return False
            self._known += tokens
            if len(self._known) >= _KNOWN_BATCH:
                self._queue_known()
            return True

    def _queue_known(self) -> None:
        if self._known:
            self._queue(_Known(self._known))
            self._known = []

    def _queue(self, job: OpenPack | _Known[Token]) -> None:
        self._jobs_alive += 1
        self._jobs.put(job)

    def _reserve(
        self, chunk_class: layout.ChunkClass, chunk_id: bytes, length: int, raw_length: int, flags: int
    ) -> Slot:
        with self._changed:
            while True:
                self._check()
                open_pack = self._open.get(chunk_class)
                if open_pack is not None and open_pack.fits(length):
                    return open_pack.reserve(chunk_id, length, raw_length, flags)
                if open_pack is not None:
                    self._close(chunk_class)
                elif self._packs_alive < MAX_PACKS:
                    self._begin(chunk_class)
                else:
                    self._changed.wait()

    def _begin(self, chunk_class: layout.ChunkClass) -> None:
        buffer = self._buffers.pop() if self._buffers else _buffer()
        self._open[chunk_class] = OpenPack(self._secrets, chunk_class, buffer)
        self._packs_alive += 1

    def _close(self, chunk_class: layout.ChunkClass) -> None:
        closed = self._open.pop(chunk_class)
        closed.closed = True
        self._queue_when_full(closed)

    def _filled(self, slot: Slot) -> None:
        with self._changed:
            slot.pack.unfilled -= 1
            self._queue_when_full(slot.pack)

    def _queue_when_full(self, closed: OpenPack) -> None:
        if closed.closed and not closed.unfilled:
            self._queue(closed)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._failure is None:
                    self._do(job)
            except BaseException as error:
                self._fail(error)
            with self._changed:
                self._jobs_alive -= 1
                self._changed.notify_all()

    def _do(self, job: OpenPack | _Known[Token]) -> None:
        tokens = job.tokens if isinstance(job, _Known) else self._upload(job)
        if tokens and self._failure is None:
            self._on_durable(tokens)
        if self._index.unwritten_chunks >= _INDEX_CHUNKS:
            self.stored_bytes += self._index.write()

    def _upload(self, full: OpenPack) -> list[Token]:
        entries, view = full.finish()
        with view:
            objects.put(self._store, pack.pack_key(full.pack_id), view)
            length = len(view)
        with self._changed:
            self._index.add(entries)
            tokens = [token for chunk_id in full.ids for token in self._pending.pop(chunk_id)]
            self.stored_bytes += length
            self.packs.append(full.pack_id.hex())
            self._buffers.append(full.buffer)
            self._packs_alive -= 1
            self._changed.notify_all()
        return tokens


def _buffer() -> mmap.mmap:
    """Memory of its own for a pack. (Shared memory, the default, would be handed on to child processes.)"""
    return mmap.mmap(-1, layout.PACK_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
