"""Images and the bitmaps in them, as QEMU keeps them.

The content of a block is a number; equal numbers are equal bytes, and ``ZERO`` is zeroes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.hypervisor.inventory import ImageFile

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
    #: Of an overlay of ours: the marks that record in it. None: it is none.
    marks: tuple[str, ...] | None = None
    #: What of an overlay's content outlasts the death of its process; None: all.
    lasting: dict[int, int] | None = None

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

    def flush(self) -> None:
        self.lasting = dict(self.content)

    def lose(self) -> None:
        """Its process died: what was not flushed has never been written."""
        if self.lasting is not None:
            self.content = dict(self.lasting)

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

    @property
    def segments(self) -> list[Image]:
        """Overlays of ours, lowest first; none where somebody else's stands upon them."""
        found = list(itertools.takewhile(lambda image: image.marks is not None, self.chain))
        return found[::-1]

    @property
    def owners(self) -> int:
        """How many of the images stand above the lowest one and all that is ours."""
        upper = list(itertools.takewhile(lambda image: image.marks is None, self.chain))
        return len(upper) - (len(upper) == len(self.chain))

    def allocated_by(self, mark: str) -> Blocks:
        """Raises ``HeadstartError`` where there is no such mark."""
        found = [image for image in self.segments if mark in (image.marks or ())]
        if not found:
            raise errors.HeadstartError(f"There is no mark {mark}.")
        return Blocks().union(*(Blocks(image.content) for image in found))

    def commit_segments(self, count: int) -> None:
        """Bring the lowest ``count`` overlays of ours into the image below."""
        for image in self.segments[:count]:
            below = self.chain[self.chain.index(image) + 1]
            below.size = image.size
            below.content |= image.content
            self.chain.remove(image)

    def content(self, block: int) -> int:
        return next((image.content[block] for image in self.chain if block in image.content), ZERO)

    def allocated(self) -> Blocks:
        return Blocks().union(*(Blocks(image.content) for image in self.chain))

    def records(self) -> Iterator[tuple[Image, str, Record]]:
        for image in self.chain:
            for name, record in image.bitmaps.items():
                yield image, name, record
