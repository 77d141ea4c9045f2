"""What a snapshot needs and no copy is believed in any longer: found by walking its trees, without reading content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headstart import blocks, errors, extents
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import layout, loss, tree
from headstart.repository.loss import Hurt
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository

#: In place of a level: not a node, but the content of a block.
CONTENT = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a disk a chunk without a good copy is needed: a node of the tree, or a block (``level`` -1).

    ``readable``: by a copy that is not believed in."""

    chunk: bytes
    level: int
    index: int
    readable: bool = False

    @property
    def chunk_class(self) -> layout.ChunkClass:
        return layout.ChunkClass.CONTENT if self.level == CONTENT else layout.ChunkClass.TREE


def _always(node_id: bytes) -> bool:
    return True


def places(repo: Repository, disk: Disk, enter: Callable[[bytes], bool] = _always) -> Iterator[Place]:
    """Of the nodes for which ``enter`` says yes. Below one that cannot be read nothing is known."""
    for visited in tree.visit(repo, disk.root, disk.size, enter):
        readable = not isinstance(visited.slots, errors.Damaged)
        if visited.node_id not in repo.index or not readable:
            yield Place(visited.node_id, visited.level, visited.index, readable)
        if not isinstance(visited.slots, errors.Damaged) and visited.level == 0:
            missing = set(repo.missing(chunk_id for chunk_id in visited.slots if chunk_id is not None))
            first = visited.index * len(visited.slots)
            yield from (
                Place(chunk_id, CONTENT, first + slot)
                for slot, chunk_id in enumerate(visited.slots)
                if chunk_id is not None and chunk_id in missing
            )


def span(repo: Repository, place: Place) -> range:
    """The blocks that are lost with it; they may go on past the end of the disk."""
    width = 1 if place.level == CONTENT else tree.span_of(repo, place.level + 1)
    return range(place.index * width, (place.index + 1) * width)


@dataclass(frozen=True, slots=True)
class Lost:
    """Blocks of one disk of one snapshot. ``nodes``: those of whole parts of the tree are among them."""

    blocks: Blocks
    nodes: bool


def of_disk(repo: Repository, disk: Disk) -> Lost:
    """Costs a walk over the tree while anything is lost at all: of one that turns out to be whole, once a process."""
    found = Blocks()
    nodes = False
    as_of = repo.index.as_of
    if disk.root is None or repo.whole.knows(as_of, disk.root, disk.size) or not repo.index.lacks_any():
        return Lost(found, nodes)
    count = blocks.count_of(disk.size, repo.block_size)
    for place in places(repo, disk):
        nodes = nodes or place.level != CONTENT
        if not place.readable:
            reach = span(repo, place)
            found.add_range(reach.start, min(reach.stop, count))
    if not found and not nodes:
        repo.whole.add(as_of, disk.root, disk.size)
    return Lost(found, nodes)


def unreadable(repo: Repository, disk: Disk) -> Blocks:
    """Those of the lost blocks of a disk that cannot be read either by a copy that was thought bad."""
    found = of_disk(repo, disk).blocks
    if found:
        content: dict[bytes, list[int]] = {}
        for place in places(repo, disk):
            if place.level == CONTENT:
                content.setdefault(place.chunk, []).append(place.index)
        for chunk_id, data in repo.scan_chunks(content):
            if not isinstance(data, errors.Damaged):
                found -= Blocks(content[chunk_id])
    return found


def hurt(repo: Repository, manifest: Manifest) -> Iterator[Hurt]:
    """One for each disk and attachment of which something is lost."""
    for disk in manifest.disks:
        lost = [place for place in places(repo, disk) if not place.readable]
        if lost:
            yield Hurt(manifest.id, manifest.vm, disk.name, _extents(repo, disk, lost), _few(lost))
    for attached in manifest.attachments:
        missing = repo.missing(attached.chunks)
        if missing:
            yield Hurt(manifest.id, manifest.vm, attached.name, (), tuple(missing))


def _extents(repo: Repository, disk: Disk, lost: list[Place]) -> tuple[Extent, ...]:
    size = repo.block_size
    found = []
    for place in lost:
        reach = span(repo, place)
        start = reach.start * size
        found.append(Extent(start, min(reach.stop * size, disk.size) - start))
    return tuple(extents.merge(found))


def _few(lost: list[Place]) -> tuple[bytes, ...] | None:
    chunks = tuple(dict.fromkeys(place.chunk for place in lost))
    return chunks if len(chunks) <= loss.MOST_CHUNKS else None


def still_hurt(repo: Repository) -> dict[str, list[Hurt]]:
    """By snapshot, what repairs could not heal and no backup has healed since. Reads no trees."""
    found: dict[str, list[Hurt]] = {}
    if next(repo.store.list(layout.LOSSES), None) is None:
        return found  # and the index need not be loaded
    for noted in repo.index.all_losses():
        for each in noted.hurt:
            if each.chunks is None or repo.missing(each.chunks):
                found.setdefault(each.snapshot, []).append(each)
    return found
