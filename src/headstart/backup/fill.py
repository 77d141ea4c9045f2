"""Filling a draft: blocks count when they are durable, and only for the round they were read in.

::

    reader's thread     reads on ........................ counts: still believed? -> journal
    other threads       zeroes found, packs durable  --->  waiting to be counted
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from headstart import blocks
from headstart.backup import records
from headstart.backup.context import Context
from headstart.blocks import Blocks
from headstart.reading import Reader
from headstart.repository.writer import Writer
from headstart.state.values import Tracked
from headstart.transfer.pipeline import Pipeline, Stored

#: Blocks that wait for their entry in the journal; losing them costs a second look.
_WAITING = 2048
#: Seconds after which what was copied is listed in the repository while more is: much less than a collector of garbage
#: leaves new packs alone for, and than a draft lives without a sign.
_LISTED_SECONDS = 3600.0
#: Raises when what was read of these disks up to now must not count.
Believe = Callable[[Collection[str]], None]


def certain(disks: Collection[str]) -> None:
    """What is read cannot change any longer."""


class Filling:
    """One run of additions to the draft of a VM. Used by one thread."""

    def __init__(self, context: Context, vm: str, round_id: str, total: int, believe: Believe) -> None:
        self._context = context
        self._vm = vm
        self._round = round_id
        self._total = total
        self._believe = believe
        self._done = 0
        self._packs_noted = 0
        #: Disks that the agent in the guest reads: what comes of them is its word.
        self._delivered: set[str] = set()
        self._sparing = False
        self._counted = 0
        self._listed = time.monotonic()
        self._waiting: list[Stored] = []
        self._lock = threading.Lock()
        self.writer: Writer[Stored] = context.repository.writer(self._wait)
        self.pipeline = Pipeline(context.repository, self.writer, self._wait)

    def expect(self, count: int) -> None:
        """So many more bytes are to be copied."""
        self._total += count

    @property
    def done(self) -> int:
        """Bytes read so far, also of disks that failed on the way."""
        return self._done

    def disk(
        self, tracked: Tracked, reader: Reader, wanted: Blocks, *, delivered: bool = False, sparing: bool = False
    ) -> None:
        """Copy blocks of a disk, all by the same reader. If it fails, what it had read before counts all the same.
        ``delivered``: the agent in the guest reads. ``sparing``: that something counts costs the disk an overlay more,
        and so each time as much as counts already is waited for."""
        if delivered:
            self._delivered.add(tracked.name)
        self._sparing = sparing
        size = self._context.repository.block_size
        extents = blocks.to_extents(wanted, size, tracked.facts.size)
        self.pipeline.copy(tracked.name, reader, extents, self._progress)

    def taken(self, stored: Collection[Stored], packs: Iterable[str], count: int, deliverer: int) -> None:
        """Blocks of ``count`` bytes that an appliance has stored (a number of ``state.appliances``), and that were seen
        to be durable. It was asked for them in this round."""
        self._believe({each.disk for each in stored})
        self._context.journal.copied(self._vm, self._round, stored, packs, deliverer=deliverer)
        self._done += count
        self._context.progress("copying", self._done, self._total)
        self._list()

    def _wait(self, stored: list[Stored]) -> None:
        """Durable, or nothing but zeroes. On other threads."""
        with self._lock:
            self._waiting += stored

    def _progress(self, count: int) -> None:
        self._done += count
        self._context.beat()
        self._context.progress("copying", self._done, self._total)
        if len(self._waiting) >= max(_WAITING, self._counted if self._sparing else 0):
            self._count()
        self._list()

    def _list(self) -> None:
        """An upload may take days, and garbage is collected every day."""
        if time.monotonic() - self._listed >= _LISTED_SECONDS:
            records.go_on(self._context, self._vm, self.writer.packs[self._packs_noted :])
            self._listed = time.monotonic()

    def _count(self) -> None:
        with self._lock:
            stored, self._waiting = self._waiting, []
        packs = self.writer.packs[self._packs_noted :]
        if stored:
            self._believe({each.disk for each in stored})
            self._context.journal.copied(self._vm, self._round, stored, packs, self._delivered)
            self._packs_noted += len(packs)
            self._counted += len(stored)

    def settle(self) -> None:
        """Everything that was read is durable and in the journal."""
        self.pipeline.settle()
        self.writer.flush()
        self._count()


@contextlib.contextmanager
def filling(context: Context, vm: str, round_id: str, total: int, believe: Believe = certain) -> Iterator[Filling]:
    """``total`` bytes are to be copied. On leaving, everything is durable and in the journal."""
    fill = Filling(context, vm, round_id, total, believe)
    with fill.writer, fill.pipeline:
        yield fill
        fill.settle()
