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
