"""Adding chunks: deduplicate, compress, seal into packs, upload in the background.

::

    put (any thread)                          the writer's own threads
    known? -> its token to the queue    --->  on_durable(tokens)
    else, several chunks as one frame,
    compress, reserve a slot, seal into
    it; a full pack is queued           --->  create in the store, enter into the index, on_durable(tokens)
"""

from __future__ import annotations

import mmap
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from headstart import errors
from headstart.repository import codec, layout, objects, pack
from headstart.repository.holdings import Holdings
from headstart.repository.index import Index
from headstart.repository.keys import Secrets
from headstart.repository.pack import OpenPack, Slot
from headstart.store.contract import Data, Store

Token = TypeVar("Token")

#: Packs that exist at a time, open or on their way into the store: one is filled while others are written. Bounds
#: memory: 64 MiB.
MAX_PACKS = 4
#: Packs that are written into the store at a time.
UPLOADS = 3
#: Tokens of chunks that were stored already are reported in batches of this many.
_KNOWN_BATCH = 256
#: After so many new chunks an index object is written without waiting for ``flush``.
_INDEX_CHUNKS = 1 << 17
#: So often, too, and then it is looked what others have listed: what several have to store is stored by one of them.
_LISTED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Known(Generic[Token]):
    """Tokens whose chunks were durable already."""

    tokens: list[Token]


class Cut(NamedTuple, Generic[Token]):
    """A chunk: ``length`` bytes from ``start`` of what it lies in. ``token`` None: report nothing."""

    chunk_id: bytes
    start: int
    length: int
    token: Token | None = None


class Writer(Generic[Token]):
    """One run of additions. ``put`` may be called from several threads at once.

    ``on_durable(tokens)`` is called on the writer's own threads only, one at a time, with the tokens of chunks that are
    now durable in the store, never before. It should be quick; what it raises counts as a failure of the writer.

    After a failure nothing further is reported durable, and every ``put`` and ``flush`` raises it. Leaving the block
    normally flushes; leaving it with an exception abandons what is not yet in the store.
    """

    def __init__(
        self,
        secrets: Secrets,
        store: Store,
        holdings: Holdings,
        index: Index,
        on_durable: Callable[[list[Token]], None],
    ) -> None:
        self._secrets = secrets
        self._store = store
        self._holdings = holdings
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
        self._reporting = threading.Lock()
        self._listed = time.monotonic()
        self._threads = [threading.Thread(target=self._work, name="pack writer", daemon=True) for _ in range(UPLOADS)]
        #: Bytes added to the store.
        self.stored_bytes = 0
        #: Ids of the packs that are durable in the store, in hex.
        self.packs: list[str] = []
        #: Ids of packs that hold what was taken for stored.
        self.relied: set[bytes] = set()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self._fail(errors.HeadstartError("The writer is closed."))
            for _ in self._threads:
                self._jobs.put(None)
            for thread in self._threads:
                thread.join()
            self._buffers.clear()

    def put(self, chunk_class: layout.ChunkClass, chunk_id: bytes, data: Data, token: Token | None = None) -> int:
        """Add a chunk; ``data`` is the caller's again when this returns. ``token`` None: report nothing.

        Returns the bytes that this adds to the store: 0 for what is stored, or on its way, already.
        Waits while too many packs are on their way into the store.
        """
        return self.put_many(chunk_class, data, [Cut(chunk_id, 0, len(data), token)])

    def put_many(self, chunk_class: layout.ChunkClass, data: Data, cuts: Sequence[Cut[Token]]) -> int:
        """As ``put``, of chunks that lie in ``data``: what is new of them is stored together."""
        if any(cut.length > layout.MAX_CHUNK_LENGTH for cut in cuts):
            raise ValueError("a chunk that is too long")
        added = 0
        view = memoryview(data)
        for group in _groups(self._fresh(cuts)):
            try:
                flags, body = codec.shrink(_joined(view, group))
                slot = self._reserve(chunk_class, group, len(body) + layout.TAG_LENGTH, flags)
                slot.fill(body)
            except BaseException as error:
                self._fail(error)
                raise
            self._filled(slot)
            added += slot.length
        return added

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
        self.stored_bytes += self._holdings.write()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()

    def _fresh(self, cuts: Sequence[Cut[Token]]) -> list[Cut[Token]]:
        """Those that are neither durable nor on their way: they are the caller's to bring on their way."""
        fresh: list[Cut[Token]] = []
        with self._changed:
            self._check()
            holders = self._index.holders(cut.chunk_id for cut in cuts)
            for cut in cuts:
                tokens = [] if cut.token is None else [cut.token]
                if cut.chunk_id in self._pending:
                    self._pending[cut.chunk_id] += tokens
                elif cut.chunk_id not in holders:
                    self._pending[cut.chunk_id] = tokens
                    fresh.append(cut)
                else:
                    self._known += tokens
                    self.relied.add(holders[cut.chunk_id])
            if len(self._known) >= _KNOWN_BATCH:
                self._queue_known()
        return fresh

    def _queue_known(self) -> None:
        if self._known:
            self._queue(_Known(self._known))
            self._known = []

    def _queue(self, job: OpenPack | _Known[Token]) -> None:
        self._jobs_alive += 1
        self._jobs.put(job)

    def _reserve(
        self, chunk_class: layout.ChunkClass, cuts: Sequence[Cut[Token]], sealed_length: int, flags: int
    ) -> Slot:
        ids, lengths = [cut.chunk_id for cut in cuts], [cut.length for cut in cuts]
        with self._changed:
            while True:
                self._check()
                open_pack = self._open.get(chunk_class)
                if open_pack is not None and open_pack.fits(sealed_length, len(ids)):
                    return open_pack.reserve(ids, lengths, sealed_length, flags)
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
        with self._reporting:
            if tokens and self._failure is None:
                self._on_durable(tokens)
            now = time.monotonic()
            if self._holdings.unwritten_chunks >= _INDEX_CHUNKS or now - self._listed >= _LISTED_SECONDS:
                self._listed = now
                self.stored_bytes += self._holdings.write()
                self._holdings.refresh()

    def _upload(self, full: OpenPack) -> list[Token]:
        entries, view = full.finish()
        with view:
            objects.put(self._store, pack.pack_key(full.pack_id), view)
            length = len(view)
        with self._changed:
            self._holdings.add(entries)
            tokens = [token for chunk_id in full.ids for token in self._pending.pop(chunk_id)]
            self.stored_bytes += length
            self.packs.append(full.pack_id.hex())
            self._buffers.append(full.buffer)
            self._packs_alive -= 1
            self._changed.notify_all()
        return tokens


def _groups(cuts: Sequence[Cut[Token]]) -> Iterator[list[Cut[Token]]]:
    """Those that become one frame each."""
    group: list[Cut[Token]] = []
    room = _frame_size()
    for cut in cuts:
        if group and (cut.length > room or len(group) == layout.FRAME_CHUNKS):
            yield group
            group, room = [], _frame_size()
        group.append(cut)
        room -= cut.length
    if group:
        yield group


def _frame_size() -> int:
    """Several frames fit into a pack, however small that is."""
    return min(layout.FRAME_SIZE, layout.PACK_SIZE // 4)


def _joined(data: memoryview, cuts: Sequence[Cut[Token]]) -> Data:
    """What the cuts hold, without copying it where they are neighbours."""
    first, last = cuts[0], cuts[-1]
    end = last.start + last.length
    if end - first.start == sum(cut.length for cut in cuts):
        return data[first.start : end]
    return b"".join(data[cut.start : cut.start + cut.length] for cut in cuts)


def _buffer() -> mmap.mmap:
    """Memory of its own for a pack. (Shared memory, the default, would be handed on to child processes.)"""
    return mmap.mmap(-1, layout.PACK_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
