"""A point in time of the filters of a guest: snapshots that the guest keeps while we read them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from headstart import errors, units
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.guest.agent import Agent
from headstart.guest.channel import Refused
from headstart.guest.filters import Hold
from headstart.hypervisor import freeze
from headstart.hypervisor.contract import PointRequest, Protects, of_disk
from headstart.reading import Piece, Reader

#: What marks recorded, as ``Bitmaps.recorded``.
Recorded = Callable[[Mapping[str, Sequence[str]]], Mapping[str, Mapping[str, Blocks]]]


class GuestPoint:
    """``headstart.hypervisor.contract.PointInTime``."""

    protects = Protects.ALL

    def __init__(self, session: Agent, sizes: Mapping[str, int], request: PointRequest, recorded: Recorded) -> None:
        """``sizes`` by disk. Raises ``NotTaken``, ``Unreachable``."""
        self._session = session
        self._sizes = sizes
        self._reads = request.reads
        self._recorded = recorded
        self.notes: list[str] = []
        starts: dict[str, list[str]] = {}
        for each in request.starts:
            starts.setdefault(each.disk, []).append(each.name)
        freezer = freeze.ThroughAgent(request.freezer or session.freezer()) if request.freeze else None
        with freeze.frozen(_Nobody(), freezer, self.notes) as froze:
            self._hold: Hold | None = session.filters().hold(list(sizes), starts)
        self._began = froze.began
        self.consistency = froze.consistency
        self.freeze_seconds = froze.freeze_seconds
        self.pause_seconds = self._hold.seconds
        self._devices = self._hold.devices

    def recorded(self) -> Mapping[str, Mapping[str, Blocks]]:
        return self._recorded(self._reads)

    def reader(self, disk: str) -> Reader:
        return _PointReader(self._session.device(of_disk(self._devices, disk), self._sizes[disk]), self.check)

    def protected(self, disk: str) -> Blocks | None:
        return None

    def keep(self, disk: str, wanted: Blocks) -> None:
        """The guest saves old content of everything."""

    def uri(self, disk: str) -> str:
        return ""

    def check(self) -> None:
        if self._hold is None:
            raise errors.PointLost("The point in time was released.")
        rooms = self._hold.rooms()
        for disk in self._sizes:
            room = rooms.get(disk)
            if room is None:
                raise errors.PointLost(f"The guest has no point in time of disk {disk} any longer.")
            if not room.valid:
                raise errors.PointLost(
                    f"The guest wrote more to disk {disk} than the {units.format_bytes(room.total)} on its companion"
                    " have room for, and the point in time was lost. Nothing was published. Back up when less is"
                    " written, copy ahead before ('headstart precopy'), or give the filter a larger companion.",
                    disk=disk,
                )

    def release(self) -> float:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()
        return time.monotonic() - self._began

    def __enter__(self) -> GuestPoint:
        return self

    def __exit__(self, *details: object) -> None:
        # What an agent that is gone leaves behind goes with its session, or at its next start.
        with contextlib.suppress(errors.HeadstartError):
            self.release()


class _Nobody:
    """``freeze.Guarding``: the agent thaws by itself."""

    def freezing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class _PointReader:
    """``headstart.reading.Reader``."""

    def __init__(self, reader: Reader, check: Callable[[], None]) -> None:
        self._reader = reader
        self._check = check

    @property
    def size(self) -> int:
        return self._reader.size

    def read(self, extents: Iterable[Extent]) -> Iterator[Piece]:
        try:
            yield from self._reader.read(extents)
        except Refused as refusal:
            # A snapshot that overflowed reads as errors.
            self._check()
            raise errors.PointLost(f"The point in time in the guest cannot be read: {refusal}") from refusal
