"""What a reader of blocks hands over, whoever reads: NBD, a file, the agent in a guest, a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from headstart.extents import Extent
from headstart.units import MIB

#: Readers cut what they are asked for at multiples of this many bytes.
PIECE_SIZE = MIB


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Piece:
    """The content of ``extent``; ``data`` None means that it reads as zeroes.

    ``data`` belongs to the reader and stays valid until ``release`` is called, once, from any
    thread. A consumer that holds all pieces without releasing any stops the reader.
    """

    extent: Extent
    data: memoryview | None
    release: Callable[[], None] = field(default=_nothing, compare=False)


def by_block(pieces: Iterable[Piece], block_size: int) -> Iterator[tuple[int, memoryview | None]]:
    """Numbers and contents of the blocks of pieces, each valid until the next one is asked for; None is zeroes. Pieces
    begin with a block, and are released, also when whoever asks has enough."""
    for piece in pieces:
        try:
            for start in range(piece.extent.start, piece.extent.end, block_size):
                offset = start - piece.extent.start
                yield start // block_size, None if piece.data is None else piece.data[offset : offset + block_size]
        finally:
            piece.release()


class Reader(Protocol):
    """Reads one disk.

    ``read`` yields every byte of the extents exactly once, in any order, in pieces that do not
    cross multiples of ``PIECE_SIZE``; or raises. Extents have to be sorted and disjoint. Each piece
    was read after the call of ``read``. One call at a time; the iterator is used by one thread.
    """

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        ...

    def read(self, extents: Iterable[Extent]) -> Iterator[Piece]: ...
