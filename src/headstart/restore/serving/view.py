"""Any bytes of a disk of a snapshot, at any time: what serving, booting and reading of files stand on.

::

    read(start, length) -> blocks -> leaf of the tree: their chunks -> pool, else the repository -> bytes
                              |
                              +---> a reader who goes on and on: the windows after it, fetched ahead

Chunks are asked for with their neighbours: what was written together lies in one frame, which is opened as a whole.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headstart import blocks, errors, extents, plain, units
from headstart.extents import Extent
from headstart.repository import Repository, tree
from headstart.repository.manifest import Disk
from headstart.restore.serving.memo import Memo
from headstart.restore.serving.pool import Pool
from headstart.restore.serving.streams import Streams
from headstart.store.contract import Data

#: Bytes of chunks that are kept.
CACHE = 64 * units.MIB
#: Leaves that are fetched together, as their nodes lie in one frame, and how many such groups are kept. A leaf has the
#: chunks of 16 MiB, a group takes up to 400 KiB of memory.
_LEAVES = 16
_GROUPS = 64
#: Bytes that are read together, aligned: those of a frame; and those of a window that is fetched ahead.
_TOGETHER = 256 * units.KIB
_WINDOW = 2 * units.MIB
#: Windows ahead of one reader: the share of the memory that one of several may take, and what fills a line.
_SHARE = 8
_MOST_AHEAD = 8
_ZEROES = bytes(64 * units.KIB)

#: The chunk of each block, None for zeroes; or why nobody knows.
Leaf = Sequence[bytes | None] | errors.Damaged


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring leaves; ``whole``: all of them could be read."""

    leaves: Sequence[Leaf]
    whole: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a disk; ``data`` is False where it is all zeroes."""

    extent: Extent
    data: bool


class DiskView:
    """A disk of a snapshot, to be read anywhere. Any thread may use it."""

    def __init__(self, repo: Repository, disk: Disk, cache: int | Pool = CACHE) -> None:
        """``cache``: bytes of content that are kept in memory, or a pool that several disks share."""
        self.disk = disk
        self.size = disk.size
        self._repo = repo
        self._count = blocks.count_of(disk.size, disk.block_size)
        self._pool = cache if isinstance(cache, Pool) else Pool(repo, cache)
        self._groups = Memo(self._load_leaves, _GROUPS)
        self._lock = threading.Lock()
        self._streams = Streams(min(_MOST_AHEAD, self._pool.capacity // _WINDOW // _SHARE), _WINDOW // 2)

    def read(self, start: int, length: int) -> bytes:
        """The bytes of this range, which must lie on the disk. ``Damaged`` names the part of it that cannot be read;
        everything else of the disk can be read all the same."""
        found = bytearray(length)
        self.read_into(memoryview(found), start)
        return bytes(found)

    def read_into(self, buffer: memoryview, start: int) -> None:
        """As ``read``, as many bytes as the buffer has. After an error it holds anything."""
        if not len(buffer):
            return
        size, end = self.disk.block_size, start + len(buffer)
        first, last = start // size, -(-end // size)
        self._fetch_ahead(start, end)
        chunks = self._chunks(first, last)
        found = self._pool.read((chunk for chunk in chunks if chunk), lambda: self._neighbours(first, last))
        for block, chunk in enumerate(chunks, first):
            content = found[chunk] if chunk else b""
            if isinstance(content, errors.Damaged):
                raise self._damaged(block, 1, content)
            begin = block * size
            _copy(buffer, begin - start, content, min(begin + size, end) - start)

    def pieces(self, start: int, length: int) -> Iterator[Piece]:
        """What lies between, ascending and without gaps: data and zeroes by turns. Nothing of the content is read."""
        size, end = self.disk.block_size, start + length
        block, begin = start // size, start
        kinds = (chunk is not None for leaf in self._leaves(block, -(-end // size)) for chunk in leaf)
        for data, group in itertools.groupby(kinds):
            block += sum(1 for _ in group)
            stop = min(block * size, end)
            if begin < stop:
                yield Piece(Extent(begin, stop - begin), data)
            begin = stop

    def _chunks(self, first: int, last: int) -> list[bytes | None]:
        """Of the blocks from ``first`` to before ``last``."""
        return list(itertools.chain.from_iterable(self._leaves(first, last)))

    def _leaves(self, first: int, last: int) -> Iterator[Sequence[bytes | None]]:
        """What the leaves say of these blocks, cut to them. ``Damaged`` once it comes to one that is."""
        width = self._repo.tree_leaf
        for number in range(first // width, -(-last // width)):
            group = self._groups[number // _LEAVES]
            if not group.whole:
                self._groups.forget(number // _LEAVES)  # what is damaged may come back
            leaf = group.leaves[number % _LEAVES]
            if isinstance(leaf, errors.Damaged):
                raise self._damaged(number * width, width, leaf)
            begin = number * width
            yield leaf[max(first - begin, 0) : last - begin]

    def _load_leaves(self, group: int) -> _Group:
        width = self._repo.tree_leaf
        first = group * _LEAVES * width
        count = min(_LEAVES * width, self._count - first)
        try:
            slots = self._walk(first, count)
        except errors.Damaged:
            starts = range(0, count, width)
            return _Group([self._leaf(first + start, min(width, count - start)) for start in starts], whole=False)
        return _Group([slots[start : start + width] for start in range(0, count, width)], whole=True)

    def _leaf(self, first: int, count: int) -> Leaf:
        try:
            return self._walk(first, count)
        except errors.Damaged as error:
            return error

    def _walk(self, first: int, count: int) -> list[bytes | None]:
        slots: list[bytes | None] = [None] * count
        for block, chunk in tree.walk(self._repo, self.disk.root, self.size, first, count):
            slots[block - first] = chunk
        return slots

    def _fetch_ahead(self, start: int, end: int) -> None:
        for part in extents.split(Extent(start, end - start), _WINDOW):
            with self._lock:
                wanted = self._streams.read(part.start // _WINDOW, part.length)
            for each in wanted:
                if each * _WINDOW < self.size:
                    with contextlib.suppress(errors.HeadstartError):  # it is told to whoever reads that
                        self._pool.ahead(self._of_window(each))

    def _of_window(self, window: int) -> set[bytes]:
        first = window * _WINDOW // self.disk.block_size
        last = min(-(-(window + 1) * _WINDOW // self.disk.block_size), self._count)
        return {chunk for chunk in self._chunks(first, last) if chunk}

    def _neighbours(self, first: int, last: int) -> set[bytes]:
        """The chunks of these blocks and of those beside them."""
        step = max(1, _TOGETHER // self.disk.block_size)
        begin, end = first // step * step, min(-(-last // step) * step, self._count)
        return {chunk for chunk in self._chunks(begin, end) if chunk}

    def _damaged(self, block: int, count: int, error: errors.Damaged) -> errors.Damaged:
        start = block * self.disk.block_size
        length = min(count * self.disk.block_size, self.size - start)
        facts = error.facts | {"disk": self.disk.name, "start": start, "length": length}
        named = plain.line(self.disk.name)
        return errors.Damaged(f"Disk {named}, bytes {start} to {start + length - 1}: {error}", **facts)


def _copy(buffer: memoryview, begin: int, content: Data, end: int) -> None:
    """Put the content, which begins at ``begin`` (perhaps before the buffer), into it up to ``end``; a chunk may be
    shorter than its block, and the rest is zeroes."""
    at = max(begin, 0)
    part = memoryview(content)[at - begin : end - begin]
    buffer[at : at + len(part)] = part
    for zeroes in range(at + len(part), end, len(_ZEROES)):
        buffer[zeroes : min(zeroes + len(_ZEROES), end)] = _ZEROES[: min(len(_ZEROES), end - zeroes)]
