"""Images and the bitmaps in them, as QEMU keeps them.

The content of a block is a number; equal numbers are equal bytes, and ``ZERO`` is zeroes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import ImageFile

ZERO = 0


def expand(content: int, length: int) -> bytes:
    """The bytes that a content number stands for."""
    return (content.to_bytes(8, "little") * (length // 8 + 1))[:length]


@dataclass(slots=True)
class Record:
    """A dirty bitmap."""

    granularity: int
    persistent: bool
    recording: bool = True
    inconsistent: bool = False
    blocks: Blocks = field(default_factory=Blocks)

    def copy(self) -> Record:
        return replace(self, blocks=self.blocks.copy())

    def truncate(self, count: int) -> None:
        """As QEMU: what is cut off is forgotten, what is added is clean."""
        self.blocks &= Blocks(range(count))


@dataclass(slots=True)
class Image:
    """A file. ``bitmaps`` live in the process that has it open, ``stored`` in the file."""

    path: str
    format: str
    size: int
    inode: int
    content: dict[int, int] = field(default_factory=dict)
    stored: dict[str, Record] = field(default_factory=dict)
    bitmaps: dict[str, Record] = field(default_factory=dict)
    read_only: bool = False
    changes: int = 0

    @property
    def persistent(self) -> bool:
        return self.format == "qcow2"

    def file(self, *, active: bool) -> ImageFile:
        size, modified = (None, None) if active else (self.size, self.changes)
        return ImageFile(self.path, self.format, self.inode, size, modified)

    def copy(self) -> Image:
        """The file as another program sees it: without what only the process knows."""
        stored = {name: record.copy() for name, record in self.stored.items()}
        return replace(self, content=dict(self.content), stored=stored, bitmaps={}, read_only=False)

    def open(self, *, read_only: bool) -> None:
        """Bitmaps of a file that is open for writing count as broken until they are stored again."""
        self.read_only = read_only
        self.bitmaps = {name: record.copy() for name, record in self.stored.items()}
        if not read_only:
            for record in self.stored.values():
                record.inconsistent = True

    def store(self) -> None:
        """The file is closed in good order, or becomes read-only."""
        if not self.read_only:
            self.stored = {name: record.copy() for name, record in self.bitmaps.items() if record.persistent}

    def require_removable(self, name: str) -> None:
        if self.read_only and self.bitmaps[name].persistent:
            raise errors.HeadstartError(f"Bitmap '{name}' cannot be removed: its image is read-only.")

    def remove_bitmap(self, name: str) -> None:
        del self.bitmaps[name]
        self.stored.pop(name, None)

    def mark(self, block: int) -> None:
        self.changes += 1
        for record in self.bitmaps.values():
            if record.recording and not record.inconsistent:
                record.blocks.add(block)

    def resize(self, size: int, block_size: int) -> None:
        count = blocks.count_of(size, block_size)
        self.size = size
        self.changes += 1
        self.content = {block: content for block, content in self.content.items() if block < count}
        for record in (*self.bitmaps.values(), *self.stored.values()):
            record.truncate(count)


@dataclass(slots=True)
class Drive:
    """A disk of the guest: its images, the active one first."""

    name: str
    chain: list[Image]
    iothread: bool = False
    plugged: bool = True

    @property
    def top(self) -> Image:
        return self.chain[0]

    def content(self, block: int) -> int:
        return next((image.content[block] for image in self.chain if block in image.content), ZERO)

    def allocated(self) -> Blocks:
        return Blocks().union(*(Blocks(image.content) for image in self.chain))

    def records(self) -> Iterator[tuple[Image, str, Record]]:
        for image in self.chain:
            for name, record in image.bitmaps.items():
                yield image, name, record
