"""Reading blocks of a simulated disk: unkind, but within the contract of ``headstart.reading.Reader``.

Content is fetched some pieces before it is handed over, pieces come out of order, and memory that was
released is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from headstart import blocks, extents
from headstart.extents import Extent
from headstart.hypervisor.memory.image import ZERO, expand
from headstart.reading import PIECE_SIZE, Piece

#: Pieces that have been fetched and not yet handed over.
AHEAD = 3
PIECE_BLOCKS = 4
SPOILT = 0xDB


class MemoryReader:
    """``fetch`` gives a block's content number now, or raises; ``step`` lets the world go on."""

    def __init__(self, size: int, block_size: int, fetch: Callable[[int], int], step: Callable[[str], None]) -> None:
        self._size = size
        self._block_size = block_size
        self._fetch = fetch
        self._step = step

    @property
    def size(self) -> int:
        return self._size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        ahead: list[Piece] = []
        for piece in self._pieces(wanted):
            self._step("read")
            ahead.append(self._piece(piece))
            if len(ahead) == AHEAD:
                yield ahead.pop()
        while ahead:
            self._step("read")
            yield ahead.pop()

    def _pieces(self, wanted: Iterable[Extent]) -> Iterator[Extent]:
        position = 0
        for extent in wanted:
            if extent.start < position or extent.end > self._size:
                raise ValueError(f"{extent} is out of order, or beyond the end at {self._size}")
            position = extent.end
            yield from extents.split(extent, min(PIECE_SIZE, PIECE_BLOCKS * self._block_size))

    def _piece(self, extent: Extent) -> Piece:
        first, end = extent.start // self._block_size, blocks.count_of(extent.end, self._block_size)
        contents = [self._fetch(block) for block in range(first, end)]
        if all(content == ZERO for content in contents):
            return Piece(extent, None, _Release(bytearray()))
        whole = b"".join(expand(content, self._block_size) for content in contents)
        start = extent.start - first * self._block_size
        memory = bytearray(whole[start : start + extent.length])
        return Piece(extent, memoryview(memory), _Release(memory))


class _Release:
    def __init__(self, memory: bytearray) -> None:
        self._memory = memory
        self._called = False

    def __call__(self) -> None:
        if self._called:
            raise RuntimeError("a piece was released twice")
        self._called = True
        self._memory[:] = bytes([SPOILT]) * len(self._memory)
