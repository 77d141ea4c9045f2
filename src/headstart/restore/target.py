"""What a disk is restored into.

::

    disk      |data|....zeroes....|data|data|...|
    target    write      zero      write      zero     then finish
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from headstart.extents import Extent
from headstart.restore.present import Before
from headstart.store.contract import Data


class Target(Protocol):
    """One disk in the making; a context manager.

    Making the object claims the place, or raises ``TargetRefused`` and leaves it as it was. Leaving the block
    without ``finish`` removes what was made, unless an error ends it that the restore can go on after (a block device
    keeps what has been written to it).

    ``write`` and ``zero``, and what ``before`` was found to hold, together cover all of ``[0, size)`` once, in any
    order, from any thread. They and ``finish`` raise ``NoSpace``, or ``TargetRefused`` when the place cannot be
    written.
    """

    #: Where the disk is found after ``finish``.
    place: Path
    #: Bytes; at least those of the disk.
    size: int
    #: What the user should know of the place as it was found.
    notes: tuple[str, ...]
    #: What may hold a part of the disk already, from a restore that was interrupted; None if nothing does.
    before: Before | None

    def write(self, start: int, pieces: Sequence[Data]) -> None:
        """The pieces one behind the other from ``start`` on; at most 1024 of them."""

    def zero(self, extent: Extent) -> None:
        """Make the extent read as zeroes."""

    def finish(self) -> None:
        """Make everything durable, and then give it its name."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *details: object) -> None: ...
