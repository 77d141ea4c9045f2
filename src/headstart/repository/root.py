"""Trees that are named by drafts and readers, so that they stay."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.repository import values


@dataclass(frozen=True, slots=True)
class Root:
    """A tree that must stay. ``root`` None: a disk of zeroes. ``size`` in bytes."""

    snapshot: str
    disk: str
    size: int
    root: bytes | None

    def told(self) -> list[object]:
        return [self.snapshot, self.disk, self.size, None if self.root is None else self.root.hex()]

    @classmethod
    def of(cls, told: object) -> Root:
        """``ValueError``."""
        snapshot, disk, size, root = values.items(told)
        return cls(
            values.text(snapshot),
            values.text(disk),
            values.count(size),
            None if root is None else values.chunk_id(root),
        )
