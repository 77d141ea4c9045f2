"""Filling a draft: blocks count when they are durable, and only for the round they were read in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from headstart import blocks
from headstart.backup.context import Context
from headstart.blocks import Blocks
from headstart.reading import Reader
from headstart.repository.writer import Writer
from headstart.state.values import Tracked
from headstart.transfer.pipeline import Pipeline, Stored

#: Blocks of zeroes that wait for their entry in the journal; losing them costs a second look.
_ZEROES_KEPT = 8192


class Filling:
    """One run of additions to the draft of a VM."""

    def __init__(self, context: Context, vm: str, round_id: str, total: int) -> None:
        self._context = context
        self._vm = vm
        self._round = round_id
        self._total = total
        self._done = 0
        self._noted = 0
        self._zeroes: list[Stored] = []
        self._lock = threading.Lock()
        self.writer: Writer[Stored] = context.repository.writer(self._durable)
        self.pipeline = Pipeline(context.repository, self.writer, self._zero)

    def disk(self, tracked: Tracked, reader: Reader, wanted: Blocks) -> int:
        """Copy blocks of a disk; returns the bytes read."""
        size = self._context.repository.block_size
        extents = blocks.to_extents(wanted, size, tracked.facts.size)
        return self.pipeline.copy(tracked.name, reader, extents, self._progress)

    def _progress(self, count: int) -> None:
        self._done += count
        self._context.progress("copying", self._done, self._total)

    def _durable(self, stored: list[Stored]) -> None:
        """On the writer's thread."""
        packs = self.writer.packs[self._noted :]
        self._context.journal.copied(self._vm, self._round, stored, packs)
        self._noted += len(packs)

    def _zero(self, stored: list[Stored]) -> None:
        """On the workers' threads."""
        with self._lock:
            self._zeroes += stored
            full, self._zeroes = (self._zeroes, []) if len(self._zeroes) >= _ZEROES_KEPT else ([], self._zeroes)
        if full:
            self._context.journal.copied(self._vm, self._round, full)

    def settle(self) -> None:
        """Everything that was read is durable and in the journal."""
        self.pipeline.settle()
        self.writer.flush()
        with self._lock:
            rest, self._zeroes = self._zeroes, []
        if rest:
            self._context.journal.copied(self._vm, self._round, rest)


@contextlib.contextmanager
def filling(context: Context, vm: str, round_id: str, total: int) -> Iterator[Filling]:
    """``total`` bytes are to be copied. On leaving, everything is durable and in the journal."""
    fill = Filling(context, vm, round_id, total)
    with fill.writer, fill.pipeline:
        yield fill
        fill.settle()
