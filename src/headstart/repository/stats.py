"""How much there is, and whose it is. Reads trees and indexes, never content.

Sets of chunks are kept as sets of positions in the index: compressed bitmaps, two for each VM.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headstart import errors
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.repository import snapshot, tree
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository

#: Called with the bytes of disks that were looked at, and of all of them.
Progress = Callable[[int, int], None]

_BATCH = 1 << 14


@dataclass(frozen=True, slots=True)
class Chunks:
    """``bytes`` uncompressed, ``stored`` as they lie in packs: of a frame, their share by length."""

    count: int = 0
    bytes: int = 0
    stored: int = 0


@dataclass(frozen=True, slots=True)
class Protected:
    """What snapshots stand for. ``size``: of all disks of each; ``data``: of their blocks that are not zeroes, and of
    attachments, each time they occur."""

    snapshots: int
    size: int
    data: int


@dataclass(frozen=True, slots=True)
class OfVm:
    """``needed``: content that the snapshots of the VM refer to, once each; ``alone``: content and trees that no other
    VM's refer to: what forgetting all of them would set free."""

    vm: str
    protected: Protected
    needed: Chunks
    alone: Chunks


@dataclass(frozen=True, slots=True)
class Objects:
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """``content`` and ``trees`` are what snapshots refer to, once each; ``spare`` is stored besides: parts of drafts,
    and what can be collected. ``objects``: all that is in the store, by kind. ``damaged`` is left out of everything."""

    protected: Protected
    content: Chunks
    trees: Chunks
    spare: Chunks
    objects: dict[str, Objects]
    vms: tuple[OfVm, ...]
    damaged: tuple[errors.Damaged, ...]

    @property
    def stored(self) -> int:
        """Bytes of all objects."""
        return sum(each.bytes for each in self.objects.values())

    @property
    def deduplication(self) -> float | None:
        """How often a byte of content is referred to; None where there is nothing."""
        return self.protected.data / self.content.bytes if self.content.bytes else None

    @property
    def compression(self) -> float | None:
        return self.content.bytes / self.content.stored if self.content.stored else None


def take(repo: Repository, progress: Progress) -> Stats:
    """Costs a walk over all trees, what snapshots of one VM share once."""
    listing = snapshot.all_manifests(repo)
    by_vm = {name: list(group) for name, group in itertools.groupby(sorted(listing.manifests, key=_vm), key=_vm)}
    counted: list[_Count] = []
    total = sum(disk.size for manifest in listing.manifests for disk in manifest.disks)
    for name, manifests in by_vm.items():
        count = _Count(repo, name)
        for manifest in manifests:
            count.add(manifest)
            progress(sum(each.protected.size for each in counted) + count.protected.size, total)
        count.forget_nodes()
        counted.append(count)
    shared = _shared(counted)
    nodes, content = Blocks(), Blocks()
    for each in counted:
        nodes |= each.nodes
        content |= each.content
    return Stats(
        _together(each.protected for each in counted),
        _chunks(repo, content),
        _chunks(repo, nodes),
        _chunks(repo, Blocks(repo.index.believed()) - content - nodes),
        _objects(repo),
        tuple(each.told(shared) for each in counted),
        (*listing.damaged, *(error for each in counted for error in each.damaged)),
    )


def _vm(manifest: Manifest) -> str:
    return manifest.vm


class _Count:
    """The snapshots of one VM."""

    def __init__(self, repo: Repository, vm: str) -> None:
        self._repo = repo
        self._vm = vm
        self._blocks: dict[bytes, int] = {}  # by node, those below it that are not zeroes
        self._snapshots = self._size = self._data = 0
        self.nodes = Blocks()
        self.content = Blocks()
        self.damaged: list[errors.Damaged] = []

    @property
    def protected(self) -> Protected:
        return Protected(self._snapshots, self._size, self._data)

    def add(self, manifest: Manifest) -> None:
        self._snapshots += 1
        for disk in manifest.disks:
            self._size += disk.size
            self._data += min(self._walk(disk) * self._repo.block_size, disk.size)
        for attached in manifest.attachments:
            self._data += attached.size
            self._want(self.content, attached.chunks)

    def forget_nodes(self) -> None:
        """No other VM's trees have many of them."""
        self._blocks.clear()

    def told(self, shared: Blocks) -> OfVm:
        alone = (self.content | self.nodes) - shared
        return OfVm(self._vm, self.protected, _chunks(self._repo, self.content), _chunks(self._repo, alone))

    def _walk(self, disk: Disk) -> int:
        """Blocks of the disk that are not zeroes. What is known from an earlier snapshot is not walked again."""
        inner: list[tuple[bytes, list[bytes]]] = []
        for visited in tree.visit(self._repo, disk.root, disk.size, self._enter):
            if isinstance(visited.slots, errors.Damaged):
                self.damaged.append(visited.slots)
                continue
            children = [slot for slot in visited.slots if slot is not None]
            if visited.level:
                inner.append((visited.node_id, children))
            else:
                self._blocks[visited.node_id] = len(children)
                self._want(self.content, children)
        for node_id, children in reversed(inner):  # each comes before those below it
            self._blocks[node_id] = sum(self._blocks.get(child, 0) for child in children)
        return 0 if disk.root is None else self._blocks.get(disk.root, 0)

    def _enter(self, node_id: bytes) -> bool:
        if node_id in self._blocks:
            return False
        self._blocks[node_id] = 0
        self._want(self.nodes, [node_id])
        return True

    def _want(self, seen: Blocks, chunk_ids: Iterable[bytes]) -> None:
        wanted = list(chunk_ids)
        found = self._repo.index.places(wanted)
        seen.update(found)
        if len(found) < len(wanted):
            located = self._repo.index.locate(wanted).values()
            self.damaged += [each for each in located if isinstance(each, errors.Damaged)]


def _shared(counted: Iterable[_Count]) -> Blocks:
    """What more than one refers to."""
    once, more = Blocks(), Blocks()
    for each in counted:
        mine = each.content | each.nodes
        more |= once & mine
        once |= mine
    return more


def _together(parts: Iterable[Protected]) -> Protected:
    told = list(parts)
    return Protected(sum(p.snapshots for p in told), sum(p.size for p in told), sum(p.data for p in told))


def _chunks(repo: Repository, positions: Blocks) -> Chunks:
    raw, stored = 0, 0.0
    for batch in batched(positions, _BATCH):
        for _, location in repo.index.copies(batch):
            raw += location.length
            stored += location.stored_length
    return Chunks(len(positions), raw, round(stored))


def _objects(repo: Repository) -> dict[str, Objects]:
    """By the folder that they are in; what is in none has its own name."""
    found: dict[str, Objects] = {}
    for name, size in repo.store.list(""):
        kind = name.partition("/")[0]
        before = found.get(kind, Objects(0, 0))
        found[kind] = Objects(before.count + 1, before.bytes + size)
    return dict(sorted(found.items()))
