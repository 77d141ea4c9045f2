"""What the disks held when a point in time stood, and whether a snapshot says the same."""

from __future__ import annotations

from headstart import errors
from headstart.repository import manifest as manifests
from headstart.repository import snapshot, tree
from headstart.repository.manifest import Disk
from headstart.repository.repo import Repository
from tests.kit.compare import WrongBytes


class Truth:
    """By the time of the point, then by disk."""

    def __init__(self) -> None:
        self._held: dict[float, dict[str, bytes]] = {}
        self._excluded: dict[float, dict[str, range]] = {}

    def note(self, moment: float, held: dict[str, bytes], excluded: dict[str, range]) -> None:
        """Of several the first: a backup asks for the time just before its point, a glimpse does not. ``excluded``:
        blocks that the backup is made without, by disk."""
        self._held.setdefault(moment, held)
        self._excluded.setdefault(moment, excluded)

    def check(self, repo: Repository, snapshot_id: str) -> None:
        """Restore it, and compare every byte. Raises ``WrongBytes``, ``AssertionError``."""
        if snapshot.is_revoked(repo, snapshot_id):
            return
        manifest = snapshot.load(repo, snapshot_id)
        held = self._held[manifest.created]
        assert {disk.name for disk in manifest.disks} <= held.keys(), "other disks than the VM had"
        for disk in manifest.disks:
            without = self._excluded[manifest.created].get(disk.name, range(0))
            told = manifests.excluded_blocks(disk)
            assert list(told) == list(without), f"disk {disk.name} was made without {without}, and tells {told}"
            right = blank(held[disk.name], without, repo.block_size)
            assert disk.size == len(right), f"disk {disk.name} has {disk.size} bytes, not {len(right)}"
            self._compare(repo, f"snapshot {snapshot_id} of {manifest.created}: disk {disk.name}", disk, right)

    def _compare(self, repo: Repository, name: str, disk: Disk, right: bytes) -> None:
        try:
            found = restored(repo, disk)
        except errors.Damaged as error:
            raise WrongBytes(f"{name} cannot be restored: {error}", disk.size) from None
        size = repo.block_size
        wrong = [
            start for start in range(0, disk.size, size) if found[start : start + size] != right[start : start + size]
        ]
        if wrong:
            count = sum(a != b for a, b in zip(found, right, strict=True))
            raise WrongBytes(f"{name} is false in the blocks {[start // size for start in wrong]}", count)


def blank(content: bytes, without: range, size: int) -> bytes:
    start, end = without.start * size, min(without.stop * size, len(content))
    return content if start >= end else content[:start] + bytes(end - start) + content[end:]


def restored(repo: Repository, disk: Disk) -> bytes:
    """The way of a restore: walk and read."""
    image = bytearray(disk.size)
    size = repo.block_size
    for block, chunk in tree.walk(repo, disk.root, disk.size):
        data = repo.read_chunk(chunk)
        image[block * size : block * size + len(data)] = data
    return bytes(image)
