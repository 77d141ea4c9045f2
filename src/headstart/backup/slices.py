"""Reading a running disk that only a point in time shows: in slices, each a short point in time of just those blocks.

For a qcow2 that an iothread serves: this QEMU aborts when an NBD client leaves such a disk, and must not be asked for
it but by jobs of its own, which copy a slice into a scratch file. Nothing in the guest is frozen. Every slice stands
still the VM for some milliseconds, so that one is not made for a few blocks if more are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headstart import blocks, errors, extents, units
from headstart.extents import Extent
from headstart.hypervisor.contract import Machine, Migrating, NotTaken, PointRequest
from headstart.hypervisor.inventory import Disk
from headstart.reading import Piece
from headstart.units import BLOCK_SIZE

#: So much room of the scratch directory a slice takes, and as much for what the guest overwrites meanwhile.
LONGEST = 256 * units.MIB
#: Where a rate is held, so much is asked for at once.
PORTION = 32 * units.MIB
TRIES = 3


class NotNow(errors.HeadstartError):
    """Nothing shows the disk at the moment, or with this hypervisor; what was read of it, was read."""


class SlicedReader:
    """A ``Reader`` (see headstart.reading)."""

    def __init__(self, machine: Machine, disk: Disk, block_size: int = BLOCK_SIZE) -> None:
        self._machine = machine
        self._disk = disk
        self._block_size = block_size

    @property
    def size(self) -> int:
        return self._disk.size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        """Raises ``NotNow``, ``Migrating``."""
        for slice_ in extents.portions(wanted, LONGEST):
            yield from self._slice(slice_)

    def _slice(self, wanted: list[Extent]) -> Iterator[Piece]:
        for number in range(1, TRIES + 1):
            try:
                yield from self._read(wanted)
                return
            except NotTaken as error:  # then nothing has come of it
                if number == TRIES:
                    raise NotNow(str(error)) from error
            except Migrating:
                raise
            except (errors.Busy, errors.PointLost, errors.NoSpace, errors.NotFound, errors.Unsupported) as error:
                raise NotNow(str(error)) from error

    def _read(self, wanted: list[Extent]) -> Iterator[Piece]:
        seen = blocks.of_extents(wanted, self._block_size)
        reserve = {self._disk.name: min(LONGEST, blocks.total_bytes(seen, self._block_size, self._disk.size))}
        request = PointRequest((), (), {self._disk.name: seen}, freeze=False, reserve=reserve)
        with self._machine.take(request) as point:
            reader = point.reader(self._disk.name)
            if reader.size != self._disk.size:
                raise NotNow("it was resized a moment ago")
            yield from reader.read(wanted)
            point.check()
