"""Where lost content may be found again: images of disks, whose blocks are compared with what is wanted by their ids.

Whatever a donor hands over is hashed before it is believed: a disk that has changed since, or another disk, costs
time and nothing else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.repository import snapshot, tree
from headstart.repository.manifest import Disk
from headstart.repository.repo import Repository

#: Blocks whose chunks are read in one go.
_WINDOW = 4096


class Image(Protocol):
    """One disk as it is, or was, somewhere."""

    def blocks(self, wanted: Blocks, block_size: int) -> Iterator[tuple[int, bytes | None]]:
        """Those of the wanted blocks that it has, in any order; None is zeroes. The last may be short. Raises errors of
        ``headstart.errors``."""
        ...


class Donor(Protocol):
    """``name`` says what it is, for people."""

    @property
    def name(self) -> str: ...

    def images(self, vm: str, disk: str) -> Generator[Image, None, None]:
        """Each is used before the next one is asked for. Raises errors of ``headstart.errors``."""
        ...


class Second:
    """Another repository: all of its snapshots of the VM, newest first."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self.name = f"repository {repo.store!r}"

    def images(self, vm: str, disk: str) -> Generator[Image, None, None]:
        for manifest in reversed(snapshot.all_manifests(self._repo).manifests):
            for each in manifest.disks:
                if (manifest.vm, each.name) == (vm, disk):
                    yield _Stored(self._repo, each)


class _Stored:
    def __init__(self, repo: Repository, disk: Disk) -> None:
        self._repo = repo
        self._disk = disk

    def blocks(self, wanted: Blocks, block_size: int) -> Iterator[tuple[int, bytes | None]]:
        if block_size != self._repo.block_size:
            raise errors.Usage(
                f"The repository {self._repo.store!r} cuts disks into blocks of {self._repo.block_size} bytes, not of "
                f"{block_size}: nothing can be healed from it."
            )
        inside = wanted & blocks.everything(self._disk.size, block_size)
        while inside:
            window = inside[:_WINDOW]
            inside = inside[_WINDOW:]
            yield from self._window(window)

    def _window(self, wanted: Blocks) -> Iterator[tuple[int, bytes | None]]:
        places: dict[bytes, list[int]] = {}
        for block, chunk_id in tree.lookup(self._repo, self._disk.root, self._disk.size, wanted):
            if chunk_id is None:
                yield block, None
            else:
                places.setdefault(chunk_id, []).append(block)
        for chunk_id, data in self._repo.scan_chunks(places):
            if not isinstance(data, errors.Damaged):
                for block in places[chunk_id]:
                    length = blocks.length_of(block, self._repo.block_size, self._disk.size)
                    yield block, bytes(data[:length]).ljust(length, b"\0")
