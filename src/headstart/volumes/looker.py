"""Looks at what lies on some disks, by whatever reads them.

Whoever parses is a process of its own (``confined``): it can be started before the guest is frozen, so that a look at
the point in time costs the window a few reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.volumes import confined
from headstart.volumes.confined import BrokenFileSystem
from headstart.volumes.selection import Seen

#: Patience for one look.
SECONDS = 60.0

#: ``read(disk, start, length)``: all of it, from a disk that is that long.
Read = Callable[[str, int, int], bytes]


class Unprotected(errors.HeadstartError):
    """This point in time has no more than was asked for."""


@dataclass(slots=True)
class _View:
    """A disk for the process that parses; what it read is remembered."""

    name: str
    size: int
    source: Read | None = None
    seen: list[Extent] = field(default_factory=list)

    def read(self, start: int, length: int) -> bytes:
        assert self.source is not None, "set by look"
        self.seen.append(Extent(start, length))
        return self.source(self.name, start, length)


class Looker:
    """For several looks at the same disks, of these sizes. A context manager."""

    def __init__(self, sizes: Mapping[str, int], seconds: float = SECONDS) -> None:
        self._views = {name: _View(name, size) for name, size in sizes.items()}
        self._looking = confined.Looking(self._views, seconds)

    def start(self) -> None:
        """So that the first look does not have to wait for it. Best effort."""
        with contextlib.suppress(errors.HeadstartError, OSError):
            self._looking.start()

    def look(self, read: Read) -> Seen:
        """Whatever the guest wrote; raises what ``read`` raises, but ``Unprotected``."""
        for view in self._views.values():
            view.source = read
        try:
            volumes, mounts = self._looking.look()
        except BrokenFileSystem as error:
            return Seen(problem=f"what is on the disks cannot be understood: {error.facts.get('reason', error)}")
        except (Unprotected, OSError) as error:
            return Seen(problem=f"what is on the disks could not be read: {error}")
        return Seen(tuple(volumes), mounts)

    def footprint(self, block_size: int) -> dict[str, Blocks]:
        """The blocks that all looks have read."""
        return {name: blocks.of_extents(view.seen, block_size) for name, view in self._views.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._looking.__exit__(*details)
