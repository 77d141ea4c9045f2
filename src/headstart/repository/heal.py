"""Healing: chunks without a good copy are looked for, and stored again in packs of their own.

::

    bad copies that can be read after all  ->  a copy of this repository  ->  images of the disks: other repositories,
    the running VM

From an image a block is healed whose content has the wanted id, and a node of a tree if all that is below it is there
as it was. Each time something was healed it is looked again: a node tells what is wanted below it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.repository import layout, lost, node, tree
from headstart.repository.donor import Donor, Image
from headstart.repository.lost import CONTENT, Place
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository

#: Keeps a chunk that was found.
Keep = Callable[[layout.ChunkClass, bytes, bytes], None]


@dataclass(slots=True)
class Healed:
    """What one source gave. ``bytes`` are uncompressed."""

    source: str
    chunks: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Where:
    vm: str
    disk: str
    size: int


@dataclass(frozen=True, slots=True)
class _Fresh:
    """Says yes to each node once."""

    seen: set[bytes]

    def __call__(self, node_id: bytes) -> bool:
        known = node_id in self.seen
        self.seen.add(node_id)
        return not known


class Healing:
    """``mirrors`` are copies of the repository itself. ``dry_run``: nothing is stored."""

    def __init__(
        self,
        repo: Repository,
        manifests: Sequence[Manifest],
        mirrors: Sequence[Repository],
        donors: Sequence[Donor],
        *,
        dry_run: bool,
    ) -> None:
        self._repo = repo
        self._manifests = manifests
        self._mirrors = mirrors
        self._donors = donors
        self._dry_run = dry_run
        self._found: set[bytes] = set()
        self.healed: list[Healed] = []
        self.notes: list[str] = []

    def run(self) -> None:
        while self._round() and not self._dry_run:
            pass

    def _round(self) -> bool:
        """Whether anything was healed."""
        before = len(self._found)
        self._store("copies that were thought bad", lambda keep: self._salvage(self._repo, keep))
        for mirror in self._mirrors:
            self._store(f"repository {mirror.store!r}", lambda keep, mirror=mirror: self._salvage(mirror, keep))  # type: ignore[misc]
        for donor in self._donors:
            self._store(donor.name, lambda keep, donor=donor: self._from_images(donor, keep))  # type: ignore[misc]
        return len(self._found) > before

    def _store(self, source: str, find: Callable[[Keep], None]) -> None:
        """What a source finds becomes durable before the next one is asked."""
        told = Healed(source)
        with contextlib.ExitStack() as stack:
            writer = None if self._dry_run else stack.enter_context(self._repo.writer(_nobody_waits))

            def keep(chunk_class: layout.ChunkClass, chunk_id: bytes, data: bytes) -> None:
                if chunk_id not in self._found:
                    self._found.add(chunk_id)
                    told.chunks += 1
                    told.bytes += len(data)
                    if writer is not None:
                        writer.put(chunk_class, chunk_id, data)

            try:
                find(keep)
            except errors.HeadstartError as error:
                self.notes.append(f"{source}: {error}")
        if told.chunks:
            self.healed.append(told)

    def _wanted(self) -> dict[bytes, layout.ChunkClass]:
        wanted = {place.chunk: place.chunk_class for _, place in self._places()}
        for manifest in self._manifests:
            for attached in manifest.attachments:
                wanted |= dict.fromkeys(self._repo.missing(attached.chunks), layout.ChunkClass.CONTENT)
        return {chunk_id: of for chunk_id, of in wanted.items() if chunk_id not in self._found}

    def _places(self) -> Iterator[tuple[_Where, Place]]:
        """What the snapshots of a disk share is looked at once."""
        seen: dict[_Where, set[bytes]] = {}
        for manifest in self._manifests:
            for disk in manifest.disks:
                where = _Where(manifest.vm, disk.name, disk.size)
                fresh = _Fresh(seen.setdefault(where, set()))
                yield from ((where, place) for place in lost.places(self._repo, disk, fresh))

    def _salvage(self, repo: Repository, keep: Keep) -> None:
        wanted = self._wanted()
        for chunk_id, data in repo.scan_chunks(wanted):
            if not isinstance(data, errors.Damaged):
                keep(wanted[chunk_id], chunk_id, bytes(data))

    def _from_images(self, donor: Donor, keep: Keep) -> None:
        by_disk: dict[tuple[str, str], dict[tuple[int, Place], int]] = {}
        for where, place in self._places():
            if place.chunk not in self._found:
                by_disk.setdefault((where.vm, where.disk), {})[where.size, place] = where.size
        for (vm, disk), wanted in by_disk.items():
            left = {place: size for (_, place), size in wanted.items()}
            with contextlib.closing(donor.images(vm, disk)) as images:
                for image in images:
                    self._from_image(image, left, keep)
                    left = {place: size for place, size in left.items() if place.chunk not in self._found}
                    if not left:
                        break

    def _from_image(self, image: Image, wanted: dict[Place, int], keep: Keep) -> None:
        size = self._repo.block_size
        ids = {place.chunk for place in wanted if place.level == CONTENT}
        numbers = Blocks(place.index for place in wanted if place.level == CONTENT)
        for _, data in image.blocks(numbers, size) if ids else ():
            if data is not None and (chunk_id := self._repo.chunk_id(data)) in ids:
                keep(layout.ChunkClass.CONTENT, chunk_id, data)
        for place, disk_size in wanted.items():
            if place.level != CONTENT and not place.readable:
                self._node(image, place, disk_size, keep)

    def _node(self, image: Image, place: Place, disk_size: int, keep: Keep) -> None:
        """Made anew from all that is below it, if that is what it was."""
        repo = self._repo
        reach = lost.span(repo, place)
        inside = Blocks(range(reach.start, min(reach.stop, blocks.count_of(disk_size, repo.block_size))))
        chunks: dict[int, bytes] = {}
        for block, data in image.blocks(inside, repo.block_size):
            if data is not None and any(data):
                chunks[block] = repo.chunk_id(data)
        made: dict[bytes, bytes] = {}
        if _rebuilt(repo, place.level, place.index, chunks, made) == place.chunk:
            for node_id, data in made.items():
                keep(layout.ChunkClass.TREE, node_id, data)


def _rebuilt(
    repo: Repository, level: int, index: int, chunks: dict[int, bytes], made: dict[bytes, bytes]
) -> bytes | None:
    """The id of the node with these chunks below it; it and those below it go into ``made``."""
    if level == 0:
        first = index * repo.tree_leaf
        slots = [chunks.get(first + slot) for slot in range(repo.tree_leaf)]
    else:
        first = index * repo.tree_fanout
        below = tree.span_of(repo, level)
        used = {block // below for block in chunks}
        slots = [
            _rebuilt(repo, level - 1, child, chunks, made) if child in used else None
            for child in range(first, first + repo.tree_fanout)
        ]
    data = node.encode(level, slots)
    if data is None:
        return None
    node_id = repo.chunk_id(data, layout.ChunkClass.TREE)
    made[node_id] = data
    return node_id


def _nobody_waits(tokens: list[None]) -> None:
    """Healed chunks are asked for by the index afterwards."""
