"""What two snapshots differ in: extents of each disk, found by walking their trees only where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headstart import blocks
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import tree
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one disk. Sizes in bytes; None where a snapshot has no such disk, which counts as zeroes. ``extents`` are of
    whole blocks, cut at the end of the longer disk."""

    disk: str
    size_before: int | None
    size_after: int | None
    extents: tuple[Extent, ...]

    @property
    def changed_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)


def between(repo: Repository, before: Manifest, after: Manifest) -> Iterator[Difference]:
    """One for each disk of either, by name. Raises ``Damaged`` where a tree cannot be read."""
    old = {disk.name: disk for disk in before.disks}
    new = {disk.name: disk for disk in after.disks}
    for name in sorted(old.keys() | new.keys()):
        yield _of_disk(repo, name, old.get(name), new.get(name))


def _of_disk(repo: Repository, name: str, before: Disk | None, after: Disk | None) -> Difference:
    (root_a, size_a), (root_b, size_b) = ((each.root, each.size) if each else (None, 0) for each in (before, after))
    changed = Blocks(tree.diff(repo, root_a, size_a, root_b, size_b))
    extents = tuple(blocks.to_extents(changed, repo.block_size, max(size_a, size_b)))
    return Difference(name, before.size if before else None, after.size if after else None, extents)
