"""Image trees: which chunk is at which block of a disk, as a hash tree that shares what did not change.

::

    level 1                 [ node . . node ]            an inner node has up to 256 children
    level 0     [ id id . id ]          [ . id . . ]     a leaf has the chunks of 1,024 neighbouring blocks
    blocks        0  1  2  3   ...                       . is all zeroes

The height follows from the size of the disk. A root of None is a disk of zeroes. A chunk may be shorter than its
block: the rest is zeroes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headstart import blocks, errors
from headstart.batches import batched
from headstart.repository import layout, node
from headstart.repository.repo import Repository
from headstart.repository.writer import Writer

Change = tuple[int, bytes | None]

#: Nodes fetched in one go.
_BATCH = 64
#: Blocks looked up in one go.
_LOOKUP_BATCH = 4096

_Token = TypeVar("_Token")


def update(
    repo: Repository,
    writer: Writer[_Token],
    root: bytes | None,
    size_old: int,
    size: int,
    changes: Iterable[Change],
) -> bytes | None:
    """The root of the tree with ``changes``: ascending blocks of the new disk and their chunks (None: zeroes).

    Puts the nodes on the touched paths into ``writer``; they can be read once it is flushed. ``size_old`` and
    ``size`` are the disk's sizes in bytes for ``root`` and for the result. When a shrunken disk ends within a
    block, that block must be among the changes if it held data (``ValueError``), so that growing again cannot
    bring back what was cut off.
    """
    new = _Shape.of(repo, size)
    old = _Shape.of(repo, size_old)
    view = _View.of(repo, root, old, new.height)
    if not new.count:
        return None
    stream = _checked(changes, new.count)
    if size < size_old and size % repo.block_size:
        stream = _with_last_block(view, stream, new.count - 1)
    for level in range(new.height + 1):
        stream = _rewritten(view, writer, level, stream, _touched(old, new, level), new)
    for _, root in stream:
        return root
    return view.root


def walk(
    repo: Repository, root: bytes | None, size: int, first: int = 0, count: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Blocks that are not zero with their chunks, ascending; of the ``count`` blocks from ``first``."""
    shape = _Shape.of(repo, size)
    last = shape.count if count is None else min(shape.count, first + count)
    if root is not None and first < last:
        yield from _walk(_View(repo, shape, root, {}), shape.height, [(0, root)], range(first, last))


def lookup(
    repo: Repository, root: bytes | None, size: int, wanted: Iterable[int]
) -> Iterator[tuple[int, bytes | None]]:
    """The chunk of each wanted block, in the order asked. Ascending blocks are cheapest."""
    shape = _Shape.of(repo, size)
    view = _View(repo, shape, root, {})
    for batch in batched(wanted, _LOOKUP_BATCH):
        leaves = view.nodes(0, sorted({block // shape.leaf for block in batch if block < shape.count}))
        for block in batch:
            leaf = leaves.get(block // shape.leaf)
            yield block, leaf[block % shape.leaf] if leaf else None


def span_of(repo: Repository, level: int) -> int:
    """Blocks below one slot of a node of this level."""
    return _Shape.of(repo, 0).span(level - 1) if level else 1


def diff(repo: Repository, root_a: bytes | None, size_a: int, root_b: bytes | None, size_b: int) -> Iterator[int]:
    """Blocks, ascending, whose chunks differ; what lies beyond the end of a disk counts as zeroes."""
    shape = _Shape.of(repo, max(size_a, size_b))
    a = _View.of(repo, root_a, _Shape.of(repo, size_a), shape.height)
    b = _View.of(repo, root_b, _Shape.of(repo, size_b), shape.height)
    if a.root != b.root:
        yield from _diff(a, b, shape.height, [(0, a.root, b.root)])


@dataclass(frozen=True, slots=True)
class _Shape:
    """The form of the tree of a disk of ``count`` blocks."""

    leaf: int
    fanout: int
    count: int
    height: int

    @classmethod
    def of(cls, repo: Repository, size: int) -> _Shape:
        count = blocks.count_of(size, repo.block_size)
        height, span = 0, repo.tree_leaf
        while span < count:
            height, span = height + 1, span * repo.tree_fanout
        return cls(repo.tree_leaf, repo.tree_fanout, count, height)

    def slots(self, level: int) -> int:
        return self.fanout if level else self.leaf

    def span(self, level: int) -> int:
        """Blocks that a node of this level covers."""
        return self.leaf * int(self.fanout**level)

    def slots_in_use(self, level: int) -> int:
        """Of all nodes of a level together: those that begin on the disk."""
        return -(-self.count // self.span(level - 1)) if level else self.count


@dataclass(frozen=True, slots=True)
class _View:
    """A tree seen with the height ``shape.height``, which need not be the one it was written with."""

    repo: Repository
    shape: _Shape
    root: bytes | None
    lifted: dict[bytes, bytes]  # nodes above the stored root, which are not stored

    @classmethod
    def of(cls, repo: Repository, root: bytes | None, stored: _Shape, height: int) -> _View:
        seen = _Shape(stored.leaf, stored.fanout, stored.count, height)
        lifted: dict[bytes, bytes] = {}
        view = cls(repo, seen, root, lifted)
        for level in range(stored.height, height, -1):
            root = view.slots(level, root)[0]
        for level in range(stored.height + 1, height + 1):
            data = node.encode(level, [root, *[None] * (stored.fanout - 1)])
            if data is None:
                break
            root = repo.chunk_id(data, layout.ChunkClass.TREE)
            lifted[root] = data
        return cls(repo, seen, root, lifted)

    def slots(self, level: int, node_id: bytes | None) -> node.Slots:
        """Of one node, fetched before or now."""
        if node_id is None:
            return [None] * self.shape.slots(level)
        return self._decode(level, node_id, self.fetch([node_id])[node_id])

    def fetch(self, node_ids: Iterable[bytes | None]) -> dict[bytes, bytes]:
        """The nodes as bytes."""
        wanted = {node_id for node_id in node_ids if node_id is not None}
        return self.repo.read_nodes(wanted - self.lifted.keys()) | self.lifted

    def slots_of(self, level: int, node_id: bytes | None, fetched: dict[bytes, bytes]) -> node.Slots:
        if node_id is None:
            return [None] * self.shape.slots(level)
        return self._decode(level, node_id, fetched[node_id])

    def nodes(self, level: int, indexes: Sequence[int]) -> dict[int, node.Slots]:
        """The slots of these nodes of a level, by index from the left; those of zeroes are left out."""
        ids = self._ids(level, indexes)
        fetched = self.fetch(ids.values())
        return {index: self._decode(level, node_id, fetched[node_id]) for index, node_id in ids.items()}

    def _ids(self, level: int, indexes: Sequence[int]) -> dict[int, bytes]:
        if level == self.shape.height:
            return {0: self.root} if self.root is not None and 0 in indexes else {}
        fanout = self.shape.fanout
        parents = self.nodes(level + 1, sorted({index // fanout for index in indexes}))
        found = ((index, parents[index // fanout][index % fanout]) for index in indexes if index // fanout in parents)
        return {index: node_id for index, node_id in found if node_id is not None}

    def read(
        self, level: int, node_id: bytes, found: dict[bytes, bytes | errors.Damaged]
    ) -> node.Slots | errors.Damaged:
        data = found[node_id]
        try:
            return data if isinstance(data, errors.Damaged) else self._decode(level, node_id, data)
        except errors.Damaged as error:
            return error

    def _decode(self, level: int, node_id: bytes, data: bytes) -> node.Slots:
        try:
            return node.decode(data, level, self.shape.slots(level))
        except ValueError:
            name = node_id.hex()
            raise errors.Damaged(f"Tree node {name} is not a node of level {level}.", object=name) from None


def _checked(changes: Iterable[Change], count: int) -> Iterator[Change]:
    last = -1
    for block, chunk_id in changes:
        if not last < block < count:
            raise ValueError(f"block {block} after {last}, on a disk of {count} blocks")
        last = block
        yield block, chunk_id


def _with_last_block(view: _View, changes: Iterator[Change], last: int) -> Iterator[Change]:
    block = -1
    for block, chunk_id in changes:
        yield block, chunk_id
    if block != last:
        leaf = view.nodes(0, [last // view.shape.leaf]).get(last // view.shape.leaf)
        if leaf and leaf[last % view.shape.leaf] is not None:
            raise ValueError(f"block {last} was cut and must be among the changes")


def _touched(old: _Shape, new: _Shape, level: int) -> int | None:
    """The node of a level that changes even without a change of a block in it."""
    if new.count < old.count:
        return (new.count - 1) // new.span(level)  # the new end cuts it
    return 0 if level > old.height else None  # it is new, above the old root


def _rewritten(
    view: _View,
    writer: Writer[_Token],
    level: int,
    changes: Iterator[Change],
    touched: int | None,
    new: _Shape,
) -> Iterator[Change]:
    """The changes of one level, as changes of the level above: each changed node's index and id."""
    for batch in batched(_by_node(changes, new.slots(level), touched), _BATCH):
        before = view.nodes(level, [index for index, _ in batch])
        for index, changed in batch:
            slots = before.get(index) or [None] * new.slots(level)
            for slot, child in changed:
                slots[slot] = child
            in_use = new.slots_in_use(level) - index * len(slots)
            if in_use < len(slots):
                slots[in_use:] = [None] * (len(slots) - in_use)
            yield index, _put(view.repo, writer, level, slots)


def _by_node(changes: Iterator[Change], slots: int, touched: int | None) -> Iterator[tuple[int, list[Change]]]:
    """Changes in the slots of each node that changes, ascending."""
    for index, group in itertools.groupby(changes, key=lambda change: change[0] // slots):
        if touched is not None and touched < index:
            yield touched, []
        if touched is not None and touched <= index:
            touched = None
        yield index, [(child - index * slots, child_id) for child, child_id in group]
    if touched is not None:
        yield touched, []


def _put(repo: Repository, writer: Writer[_Token], level: int, slots: node.Slots) -> bytes | None:
    data = node.encode(level, slots)
    if data is None:
        return None
    node_id = repo.chunk_id(data, layout.ChunkClass.TREE)
    writer.put(layout.ChunkClass.TREE, node_id, data)
    return node_id


def _walk(view: _View, level: int, nodes: list[tuple[int, bytes]], wanted: range) -> Iterator[tuple[int, bytes]]:
    """Below ``nodes``, ascending neighbours of one level."""
    width, below = view.shape.slots(level), view.shape.span(level - 1) if level else 1
    for batch in batched(nodes, _BATCH):
        fetched = view.fetch(node_id for _, node_id in batch)
        children = [
            (child, child_id)
            for index, node_id in batch
            for child, child_id in enumerate(view.slots_of(level, node_id, fetched), index * width)
            if child_id is not None and child * below < wanted.stop and (child + 1) * below > wanted.start
        ]
        if level:
            yield from _walk(view, level - 1, children, wanted)
        else:
            yield from children


@dataclass(frozen=True, slots=True)
class Visit:
    """One node as it was found; ``index`` counts the nodes of its level from the left."""

    level: int
    index: int
    node_id: bytes
    slots: node.Slots | errors.Damaged


def visit(repo: Repository, root: bytes | None, size: int, enter: Callable[[bytes], bool]) -> Iterator[Visit]:
    """Every node for whose id ``enter`` says yes, each before those below it, read from the store.

    A damaged node is reported, and what is below it left out.
    """
    view = _View(repo, _Shape.of(repo, size), root, {})
    if root is not None and enter(root):
        yield from _visit(view, view.shape.height, [(0, root)], enter)


def _visit(view: _View, level: int, nodes: list[tuple[int, bytes]], enter: Callable[[bytes], bool]) -> Iterator[Visit]:
    for batch in batched(nodes, _BATCH):
        scanned = view.repo.scan_chunks(node_id for _, node_id in batch)
        found = {node_id: data if isinstance(data, errors.Damaged) else bytes(data) for node_id, data in scanned}
        visits = [Visit(level, index, node_id, view.read(level, node_id, found)) for index, node_id in batch]
        yield from visits
        if level:
            children = [child for visited in visits for child in _children(view, visited) if enter(child[1])]
            yield from _visit(view, level - 1, children, enter)


def _children(view: _View, visited: Visit) -> Iterator[tuple[int, bytes]]:
    if not isinstance(visited.slots, errors.Damaged):
        for index, child in enumerate(visited.slots, visited.index * view.shape.slots(visited.level)):
            if child is not None:
                yield index, child


def _diff(a: _View, b: _View, level: int, pairs: list[tuple[int, bytes | None, bytes | None]]) -> Iterator[int]:
    """Blocks that differ below ``pairs`` of nodes at the same place, which differ."""
    for batch in batched(pairs, _BATCH):
        fetched_a = a.fetch(pair[1] for pair in batch)
        fetched_b = b.fetch(pair[2] for pair in batch)
        children = [
            (index * a.shape.slots(level) + slot, *ids)
            for index, id_a, id_b in batch
            for slot, ids in enumerate(
                zip(a.slots_of(level, id_a, fetched_a), b.slots_of(level, id_b, fetched_b), strict=True)
            )
            if ids[0] != ids[1]
        ]
        if level:
            yield from _diff(a, b, level - 1, children)
        else:
            yield from (child for child, _, _ in children)
