"""Reading a running domain from outside.

A raw image is read as the file that it is (``rawfile``). What is inside of a qcow2 only QEMU knows, and libvirt lets
nobody ask it but in a backup job: so such a disk is read in slices, a job of a few seconds each, whose scratch space
stays small and which does not hold the guest up for long.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterable, Iterator

from headstart import errors, extents, units
from headstart.extents import Extent
from headstart.hypervisor.inventory import Disk
from headstart.hypervisor.libvirt.jobs import Job, Jobs, Part
from headstart.reading import Piece
from headstart.wire import nbd

#: So long a slice is read; beginning and ending its job takes about a tenth of a second.
SLICE_SECONDS = 4.0
#: Bytes that are asked for at once: a slice ends only between two of these.
PORTION = 64 * units.MIB
#: A guest that fills the scratch file of one slice after the other is too busy to be read from outside.
TRIES = 3


class Slices:
    """The jobs of several readers, one at a time. A context manager."""

    def __init__(self, jobs: Jobs, targets: tuple[str, ...]) -> None:
        self._jobs = jobs
        self._targets = targets
        self._disk = ""
        self._began = 0.0
        self._job: Job | None = None
        self._client: nbd.Client | None = None

    def client(self, disk: Disk) -> nbd.Client:
        """In a job that still has time."""
        if self._client is None or self._disk != disk.name or time.monotonic() - self._began > SLICE_SECONDS:
            self._client = self.begin(disk).client(disk.name)
        return self._client

    def begin(self, disk: Disk) -> Job:
        """A new one, in the place of the one that stands."""
        self.end()
        self._job = self._jobs.begin(self._targets, [Part(disk.name, disk.size)], {})
        self._disk, self._began = disk.name, time.monotonic()
        return self._job

    def check(self) -> None:
        if self._job is not None:
            self._job.check()

    def end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
        job, self._job = self._job, None
        if job is not None:
            self._jobs.end()

    def __enter__(self) -> Slices:
        return self

    def __exit__(self, *details: object) -> None:
        self.end()


class SlicedReader:
    """``headstart.hypervisor.contract.LiveReader`` and ``Spells``."""

    #: No slice lasts as long as this may be read.
    uri = ""
    spell_seconds = SLICE_SECONDS

    def __init__(self, slices: Slices, disk: Disk) -> None:
        self._slices = slices
        self._disk = disk

    @contextlib.contextmanager
    def spell(self) -> Iterator[str]:
        try:
            yield self._slices.begin(self._disk).export(self._disk.name).uri
        finally:
            self._slices.end()

    @functools.cached_property
    def size(self) -> int:
        """Asked for when it is needed: it takes a job."""
        return self._slices.client(self._disk).size

    def allocated(self) -> Iterator[Extent]:
        return self._slices.client(self._disk).allocated()

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        for portion in extents.portions(wanted, PORTION):
            yield from self._portion(portion)

    def _portion(self, portion: list[Extent]) -> Iterator[Piece]:
        """A slice that was given up costs what had not come yet: that is asked for again."""
        got: list[Extent] = []
        for number in range(1, TRIES + 1):
            try:
                for piece in self._slices.client(self._disk).read(_rest(portion, got, self.size)):
                    got.append(piece.extent)
                    yield piece
                self._slices.check()
            except errors.PointLost:
                self._slices.end()
                if number == TRIES:
                    raise
            else:
                return


def _rest(portion: list[Extent], got: list[Extent], size: int) -> list[Extent]:
    return extents.gaps([*extents.gaps(portion, size), *got], size) if got else portion
