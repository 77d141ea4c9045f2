"""Any bytes of a disk of a snapshot, at any time: what serving, booting and reading of files stand on.

::

    read(start, length) -> blocks -> leaf of the tree: their chunks -> cache, else the repository -> bytes

Chunks are asked for with their neighbours: what was written together lies in one frame, which is opened as a whole.
"""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headstart import errors, plain, units
from headstart.extents import Extent
from headstart.repository import Repository, tree
from headstart.repository.manifest import Disk
from headstart.store.contract import Data

#: Bytes of chunks that are kept.
CACHE = 64 * units.MIB
#: Leaves that are kept: a leaf lists the chunks of 16 MiB.
_LEAVES = 256
#: Bytes that are read together, aligned: those of a frame.
_TOGETHER = 256 * units.KIB

Leaf = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a disk; ``data`` is False where it is all zeroes."""

    extent: Extent
    data: bool


class DiskView:
    """A disk of a snapshot, to be read anywhere. Any thread may use it."""

    def __init__(self, repo: Repository, disk: Disk, cache: int = CACHE) -> None:
        """``cache``: bytes of content that are kept in memory."""
        self.disk = disk
        self.size = disk.size
        self._repo = repo
        self._lock = threading.Lock()
        self._leaves: collections.OrderedDict[int, Leaf] = collections.OrderedDict()
        self._chunks: collections.OrderedDict[bytes, Data] = collections.OrderedDict()
        self._room = max(1, cache // disk.block_size)

    def read(self, start: int, length: int) -> bytes:
        """The bytes of this range, which must lie on the disk. ``Damaged`` names the part of it that cannot be read;
        everything else of the disk can be read all the same."""
        first, last = start // self.disk.block_size, -(-(start + length) // self.disk.block_size)
        ids = {block: self._leaf(block).get(block) for block in range(first, last)}
        contents = self._contents(ids, first, last)
        joined = b"".join(self._block(contents[chunk] if chunk else None) for chunk in ids.values())
        skip = start - first * self.disk.block_size
        return joined[skip : skip + length]

    def pieces(self, start: int, length: int) -> Iterator[Piece]:
        """What lies between, ascending and without gaps: data and zeroes by turns. Nothing of the content is read."""
        end = start + length
        first, last = start // self.disk.block_size, -(-end // self.disk.block_size)
        for data, group in itertools.groupby(range(first, last), lambda block: block in self._leaf(block)):
            blocks = list(group)
            begin = max(start, blocks[0] * self.disk.block_size)
            yield Piece(Extent(begin, min(end, (blocks[-1] + 1) * self.disk.block_size) - begin), data)

    def _leaf(self, block: int) -> Leaf:
        """The blocks of the leaf of this one that are not zero, and their chunks."""
        number = block // self._repo.tree_leaf
        with self._lock:
            if number in self._leaves:
                self._leaves.move_to_end(number)
                return self._leaves[number]
        first = number * self._repo.tree_leaf
        try:
            leaf = dict(tree.walk(self._repo, self.disk.root, self.size, first, self._repo.tree_leaf))
        except errors.Damaged as error:
            raise self._damaged(first, self._repo.tree_leaf, error) from error
        with self._lock:
            self._leaves[number] = leaf
            while len(self._leaves) > _LEAVES:
                self._leaves.popitem(last=False)
        return leaf

    def _contents(self, ids: dict[int, bytes | None], first: int, last: int) -> dict[bytes, Data]:
        found: dict[bytes, Data] = {}
        wanted = {chunk for chunk in ids.values() if chunk}
        with self._lock:
            for chunk in wanted & self._chunks.keys():
                self._chunks.move_to_end(chunk)
                found[chunk] = self._chunks[chunk]
        if len(found) == len(wanted):
            return found
        for chunk, content in self._repo.scan_chunks(self._together(first, last)):
            if not isinstance(content, errors.Damaged):
                found[chunk] = content
                self._keep(chunk, content)
            elif chunk in wanted:
                block = next(block for block, its in ids.items() if its == chunk)
                raise self._damaged(block, 1, content)
        return found

    def _together(self, first: int, last: int) -> Iterable[bytes]:
        """The chunks of these blocks and of their neighbours."""
        step = max(1, _TOGETHER // self.disk.block_size)
        blocks = range(first // step * step, -(-last // step) * step)
        return {chunk for block in blocks if (chunk := self._leaf(block).get(block))}

    def _keep(self, chunk: bytes, content: Data) -> None:
        with self._lock:
            self._chunks[chunk] = content
            self._chunks.move_to_end(chunk)
            while len(self._chunks) > self._room:
                self._chunks.popitem(last=False)

    def _block(self, content: Data | None) -> bytes:
        """A chunk may be shorter than its block."""
        return bytes(content or b"")[: self.disk.block_size].ljust(self.disk.block_size, b"\0")

    def _damaged(self, block: int, count: int, error: errors.Damaged) -> errors.Damaged:
        start = block * self.disk.block_size
        length = min(count * self.disk.block_size, self.size - start)
        facts = error.facts | {"disk": self.disk.name, "start": start, "length": length}
        named = plain.line(self.disk.name)
        return errors.Damaged(f"Disk {named}, bytes {start} to {start + length - 1}: {error}", **facts)
