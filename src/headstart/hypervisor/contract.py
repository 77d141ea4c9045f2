"""What Headstart needs of a hypervisor, and what it may assume.

Two contracts: ``Bitmaps`` (where changes are recorded) and ``Machine`` (disks, reading, points in
time). A driver implements both; ``memory`` has QEMU's semantics without QEMU.

::

    bitmap       .....recording...........|  frozen (disabled)     a write is marked when it completes
    transact     [start NEW, stop OLD]       all or nothing, over all disks, at one point of the I/O
    take         starts NEW, then the point in time stands, then returns; OLD goes on recording
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar, runtime_checkable

from headstart import errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.inventory import Inventory
from headstart.reading import Reader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A dirty bitmap on a disk. ``believed`` is false when it is inconsistent, has another
    granularity, or stands below the node that the guest writes to."""

    name: str
    recording: bool
    believed: bool = True
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Create a bitmap that records from now on."""

    disk: str
    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Freeze a bitmap: it keeps its bits and records no longer.

    A driver that cannot freeze one lets it record until it is removed: what is read of it then holds more than
    was asked for, and never less."""

    disk: str
    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    disk: str
    name: str


Action = Start | Stop | Remove


class Bitmaps(Protocol):
    """Where a VM's changes are recorded."""

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        """All bitmaps of each disk, also those of others."""
        ...

    def transact(self, actions: Sequence[Action]) -> None:
        """All or nothing. What is started records before what is stopped is frozen; of each disk at one point
        of its I/O."""
        ...

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        """What each of the named bitmaps of each disk holds, frozen or recording, as of some moment after
        the call, of each bitmap another one. Not while a point in time stands (see ``PointInTime.recorded``).
        Raises ``Busy`` while a migration runs, or where somebody else has what is needed to read a bitmap;
        also when nothing is asked for."""
        ...

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        """The same, of all named bitmaps of a disk together."""
        ...

    def settle(self, disks: Sequence[str]) -> None:
        """What the marks of these disks recorded before the newest one of each began has been read, and is known
        durably: of those that ``OVERLAY`` records it may be forgotten, so that their images have everything again
        but what is written from then on. All others keep it."""
        ...

    def flush(self, disks: Sequence[str]) -> None:
        """What anybody, the guest too, has read of these disks until now outlasts the end of the VM's process, in
        whatever way it ends (of its machine, where ``ERA`` records), together with the record of what was written. What
        a live reader or a point in time reads may be so by itself; else this can cost an overlay more, until it is
        settled. Asked for only of disks that ``OVERLAY`` or ``ERA`` records: bitmaps do not outlast such an end
        anyway."""
        ...


class LiveReader(Reader, Protocol):
    """A running disk. What is read may be torn or old a moment later: only blocks that no bitmap
    reports afterwards count."""

    def allocated(self) -> Iterator[Extent]:
        """What may hold something else than zeroes, ascending; found out while it is being asked for."""
        ...

    @property
    def uri(self) -> str:
        """Where others on this host can read the same over NBD, for as long as this may be read; empty if nowhere."""
        ...


@runtime_checkable
class Spells(Protocol):
    """A live reader that others can follow for some seconds at a time only."""

    #: A spell is to be left as soon as possible after so long.
    spell_seconds: float

    def spell(self) -> AbstractContextManager[str]:
        """Inside, others on this host can read the same over NBD there. Raises ``Busy``, ``NoSpace``, ``PointLost``."""
        ...


class Protects(Enum):
    #: Everything reads as of the point in time, until ``keep`` narrows it.
    ALL = "all"
    #: Only what the request wanted (and what the ended bitmaps had recorded) reads.
    WANTED = "wanted"


class GuestFreezer(Protocol):
    """Whoever in the guest freezes where the hypervisor has nobody for that, and stands behind a freeze
    of the hypervisor's: it thaws by itself when we are gone, and 10 s after the order at the latest."""

    #: What to write on the connection so that it thaws, for a process that inherits it; empty if only we can.
    thaw_order: bytes

    def fileno(self) -> int:
        """The connection."""
        ...

    def freeze(self, seconds: float, notes: list[str]) -> bool | None:
        """Whether all was frozen, answered within ``seconds``; None if that is not known. ``notes`` get why not."""
        ...

    def thaw(self, seconds: float) -> bool | None:
        """Whether all was still frozen; None if that is not known."""
        ...

    def arm(self, seconds: float) -> None:
        """After so long thaw whatever is frozen then, even if we are gone. Raises ``HeadstartError``."""
        ...

    def disarm(self) -> None:
        """Best effort."""
        ...


@dataclass(frozen=True, slots=True)
class PointRequest:
    """A point in time over all disks at once.

    ``starts`` record from before the point; ``ends`` have recorded everything up to it. ``wanted`` is
    what the caller knows to need so far: a driver that protects ``WANTED`` adds to it what the bitmaps
    in ``ends`` record until the point, and freezes them there, so that they tell nothing later (also if
    the point is lost afterwards). One that protects ``ALL`` leaves them recording.
    """

    starts: tuple[Start, ...]
    ends: tuple[Stop, ...]
    wanted: Mapping[str, Blocks]
    freeze: bool = True
    #: Bytes of local disk that copies of overwritten blocks may take, by disk.
    reserve: Mapping[str, int] = field(default_factory=dict)
    #: Names of recording bitmaps that ``PointInTime.recorded`` is to tell, by disk: oldest first, each
    #: begun before the next one.
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)
    freezer: GuestFreezer | None = None


def of_disk(found: Mapping[str, T], disk: str) -> T:
    """What a point in time has of a disk. Raises ``NotFound``: it was unplugged before the point stood."""
    try:
        return found[disk]
    except KeyError:
        raise errors.NotFound(f"The VM has no disk '{disk}' any longer: it was unplugged.", disk=disk) from None


class NotTaken(errors.PointLost):
    """The point in time did not come about, for a reason that passes: try again at once."""


class Migrating(errors.Busy):
    """The VM is on its way to another hypervisor process, or there already; nothing of ours stands in it."""


class Disturbed(NotTaken):
    """The VM was off, and somebody started it, or wrote to its images, while they were read: meet it anew."""


class PointInTime(Protocol):
    """A point in time of all disks, while it stands. A context manager: leaving it releases it.

    When a migration of the VM begins it is taken away at once: everything but ``release`` raises ``Migrating``."""

    protects: Protects
    #: ``filesystem`` if the guest's file systems were frozen, ``offline`` if the VM was off, else ``crash``.
    consistency: str
    freeze_seconds: float
    pause_seconds: float
    #: What the user should know: why nothing was frozen, say.
    notes: list[str]

    def recorded(self) -> Mapping[str, Mapping[str, Blocks]]:
        """What the bitmaps in ``PointRequest.reads`` recorded, at least up to the point."""
        ...

    def reader(self, disk: str) -> Reader:
        """Reads as of the point. Fails for what is not (any longer) protected. Raises ``NotFound`` for a disk that the
        VM did not have then."""
        ...

    def protected(self, disk: str) -> Blocks | None:
        """With ``WANTED``: exactly the blocks that can be read. None: all."""
        ...

    def keep(self, disk: str, wanted: Blocks) -> None:
        """From now on only these are needed: where the driver can let go of the others, the guest's writes there
        cost nothing any longer."""
        ...

    def uri(self, disk: str) -> str:
        """Where others can read the point over NBD; empty if the driver offers no export."""
        ...

    def check(self) -> None:
        """Raises ``PointLost`` unless everything that was read up to now was as of the point."""
        ...

    def release(self) -> float:
        """Take the point in time away. Returns the window: seconds from freeze until now."""
        ...

    def __enter__(self) -> PointInTime: ...

    def __exit__(self, *details: object) -> None: ...


class Machine(Bitmaps, Protocol):
    """A connection to one VM."""

    @property
    def agent(self) -> str:
        """Where agentd's channel of this VM is, as ``guest.links`` takes it, if the hypervisor knows that and that
        somebody is there."""
        ...

    @property
    def off(self) -> bool:
        """The VM does not run. Where its images are read there are ``inventory``, ``bitmaps``, ``recorded``
        and ``take``, which begins and ends no bitmap; ``PointInTime.check`` raises ``Disturbed`` if the VM was started
        meanwhile."""
        ...

    def awaken(self) -> tuple[str, ...]:
        """A VM that is off is made ready to have its bitmaps removed without its guest running, and put back by
        ``close``; its owner cannot start it meanwhile. Says what was done. Raises ``Unreachable`` where that cannot be
        done."""
        ...

    def reclaim(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        """Find bitmaps again that the hypervisor forgot, by what ``keepsakes`` told. Says what was done."""
        ...

    def keepsakes(self) -> Mapping[str, str]:
        """What is worth keeping outside of the hypervisor to find our bitmaps again, by name."""
        ...

    def inventory(self) -> Inventory: ...

    def live(self, disks: Sequence[str]) -> AbstractContextManager[Mapping[str, LiveReader]]:
        """Readers of the running disks, without those that are ``unreadable``. Not while a point in time
        stands. When a migration begins they are taken away: reading raises ``Migrating``."""
        ...

    def let_move(self) -> bool:
        """The VM may be migrated from now on. Whether anything of ours kept it from that: then no mark begins where
        ``OVERLAY`` records (``transact`` and ``take`` raise ``Migrating``) until it has arrived, or ``let_stay``."""
        ...

    def let_stay(self) -> None:
        """It will not be migrated after all. Raises ``Migrating`` if it is on its way."""
        ...

    def counters(self) -> Counters:
        """What guest and CPUs have done so far. Costs milliseconds, and waits for nothing that is under way: also
        while disks are read, and while a point in time stands. Disks whose counters cannot be had now are left out.
        Raises ``Unreachable`` where the VM does not run."""
        ...

    def take(self, request: PointRequest) -> PointInTime:
        """Raises ``Busy`` when somebody else works on a disk, ``NoSpace`` without the reserve; then
        nothing has been changed but that ``starts`` may exist."""
        ...

    def recover(self) -> tuple[str, ...]:
        """Put right what a dead run of this installation left behind (exports, jobs, nodes, a
        stopped VM, a frozen guest; not its recording bitmaps), and say what was done."""
        ...

    def close(self) -> None: ...
