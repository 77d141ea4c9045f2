"""Whether a reader may go on, and how fast: asked for every portion of bytes.

::

    reader    a portion  ->  permit.wait  ->  reads it, with permit.check at every piece  ->  the next portion
                              |  the governor is asked twice a second; halted: nothing more is asked for
                              |  the bucket is asked, which has the governor's rate
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol

from headstart.extents import Extent
from headstart.load.bucket import Bucket
from headstart.load.governor import Governor, State
from headstart.reading import Piece, Reader
from headstart.units import KIB, MIB

#: Seconds between two looks at the load while something is read: a halt has to come within two.
LOOK_SECONDS = 0.5
#: Nobody sleeps longer without asking whether still to go on.
NAP_SECONDS = 0.1
#: So many seconds' worth is asked for at once. More would go on for too long after a halt, and a flush of the guest's
#: would wait until QEMU has answered all of it.
PORTION_SECONDS = 0.005
#: Multiples of the block size: no block may be cut. At full speed portions cost little from 32 MiB on.
LEAST_PORTION = 64 * KIB
MOST_PORTION = 32 * MIB


class Halted(Exception):
    """Nothing more is to be read now. What was read counts."""


class Permit(Protocol):
    """Says whether a reader may go on. Used in the reader's thread alone."""

    def portion(self) -> int:
        """Bytes to ask for at once: a multiple of ``LEAST_PORTION``."""
        ...

    def wait(self, count: int) -> None:
        """Returns when ``count`` more bytes may be read. Raises what ``check`` raises."""
        ...

    def check(self) -> None:
        """Raises ``Halted``, or anything else that has to end the reading. Cheap: it is called at every piece."""
        ...


class Throttle:
    """A ``Permit`` that follows a governor. ``governed`` looks at the load, and takes a step."""

    def __init__(
        self,
        governed: Callable[[], Governor],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._governed = governed
        self._clock = clock
        self._sleep = sleep
        self._bucket = Bucket(0.0, clock)
        self._looked = float("-inf")

    def portion(self) -> int:
        wanted = (self._bucket.rate or 0.0) * PORTION_SECONDS
        portion = min(max(int(wanted), LEAST_PORTION), MOST_PORTION)
        return portion // LEAST_PORTION * LEAST_PORTION

    def wait(self, count: int) -> None:
        self.check()
        self._bucket.take(count)
        while (debt := self._bucket.debt()) > 0:
            self._sleep(min(debt, NAP_SECONDS))
            self.check()

    def check(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        governor = self._governed()
        if governor.state is State.HALTED:
            raise Halted(governor.reason)
        self._bucket.set_rate(governor.rate)


class ThrottledReader:
    """Another reader, as far and as fast as ``permit`` allows. A ``Reader`` (see headstart.reading).

    ``portions`` are asked for at once: more than one where each question takes its time."""

    def __init__(self, inner: Reader, permit: Permit, portions: int = 1) -> None:
        self._inner = inner
        self._permit = permit
        self._portions = portions

    @property
    def size(self) -> int:
        return self._inner.size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        rest = _Rest(wanted)
        self._permit.check()
        while portion := rest.take(self._permit.portion() * self._portions):
            self._permit.wait(sum(extent.length for extent in portion))
            yield from self._portion(portion)

    def _portion(self, portion: list[Extent]) -> Iterator[Piece]:
        pieces = self._inner.read(portion)
        try:
            for piece in pieces:
                yield piece
                self._permit.check()
        finally:
            # What was asked for and has not come is called off now, not when the garbage is collected.
            if isinstance(pieces, Generator):
                pieces.close()


class _Rest:
    """Extents from which portions are taken."""

    def __init__(self, wanted: Iterable[Extent]) -> None:
        self._extents = iter(wanted)
        self._cut: Extent | None = None

    def take(self, count: int) -> list[Extent]:
        found: list[Extent] = []
        while count > 0:
            extent = self._cut or next(self._extents, None)
            if extent is None:
                break
            length = min(extent.length, count)
            self._cut = Extent(extent.start + length, extent.length - length) if length < extent.length else None
            found.append(Extent(extent.start, length))
            count -= length
        return found
