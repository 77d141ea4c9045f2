"""A connection to a simulated VM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.contract import Action, Bitmap, LiveReader, PointInTime, PointRequest
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.inventory import Disk, Inventory, LeftOut, Recorder
from headstart.hypervisor.memory import counters
from headstart.hypervisor.memory.connection import Connection
from headstart.hypervisor.memory.image import Drive, Image, Record
from headstart.hypervisor.memory.point import MemoryPoint
from headstart.hypervisor.memory.reader import MemoryReader


class MemoryMachine(Connection):
    """``headstart.hypervisor.contract.Machine``. A context manager."""

    agent = ""
    off = False

    # -- looking

    def awaken(self) -> tuple[str, ...]:
        self.step("awaken")
        return ()

    def reclaim(self, kept: Mapping[str, str]) -> tuple[str, ...]:
        self.step("reclaim")
        return ()

    def keepsakes(self) -> Mapping[str, str]:
        self.step("keepsakes")
        return {}

    def inventory(self) -> Inventory:
        self.step("inventory")
        return Inventory(
            tuple(self._disk(drive) for drive in self._vm.drives.values() if drive.plugged),
            (LeftOut("cd", "removable (CD-ROM or floppy)"),),
            "memory",
        )

    def _disk(self, drive: Drive) -> Disk:
        count = len(drive.segments)
        return Disk(
            name=drive.name,
            size=drive.top.size,
            format=drive.chain[count].format,
            serial=drive.name,
            layers=tuple(image.file(active=number <= count) for number, image in enumerate(drive.chain)),
            persistent=drive.top.persistent,
            recorder=Recorder.OVERLAY if count else Recorder.BITMAP,
            overlays=count,
            unreadable="its device is served by an iothread" if drive.iothread else "",
            glimpsed=drive.iothread,
            untracked="raw disks keep no checkpoints" if self._vm.checkpoints and not drive.top.persistent else "",
        )

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        self.step("bitmaps")
        return {
            drive.name: (
                *_layered(drive),
                *(self._bitmap(drive, *found) for found in drive.records()),
            )
            for drive in self._vm.drives.values()
            if drive.plugged
        }

    def _bitmap(self, drive: Drive, image: Image, name: str, record: Record) -> Bitmap:
        sound = not record.inconsistent and record.granularity == self._vm.block_size
        believed = sound and image is drive.top and not drive.segments
        return Bitmap(name, record.recording, believed, record.persistent)

    # -- bitmaps

    def transact(self, actions: Sequence[Action]) -> None:
        self.step("transact")
        if actions:
            self.refuse_migration()
        self.apply(actions)
        self.step("transacted")

    def changed(self, names: Mapping[str, Sequence[str]]) -> dict[str, Blocks]:
        return {disk: Blocks().union(*each.values()) for disk, each in self.recorded(names).items()}

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        self.step("recorded")
        self.refuse_second_job()
        self.refuse_migration()
        found: dict[str, dict[str, Blocks]] = {disk: {} for disk in names}
        with self.served():
            for disk, tracks in names.items():
                for name in tracks:
                    found[disk][name] = self.union(disk, [name])
                    # Each bitmap is as of its own moment.
                    self.step("merged")
                with self.exported(f"view-{disk}"):
                    self.step("view")
        return found

    # -- content

    @contextlib.contextmanager
    def live(self, disks: Sequence[str]) -> Iterator[Mapping[str, LiveReader]]:
        self.step("live")
        self.refuse_second_job()
        self.refuse_migration()
        chosen = [
            drive for drive in self._vm.drives.values() if drive.plugged and drive.name in disks and not drive.iothread
        ]
        with contextlib.ExitStack() as stack:
            if chosen:
                stack.enter_context(self.served())
            for drive in chosen:
                stack.enter_context(self.exported(f"live-{drive.name}"))
            yield {drive.name: _Live(self, drive, self._vm.block_size) for drive in chosen}

    def let_move(self) -> bool:
        self.refuse_migration()
        self.process.may_move = any(drive.segments for drive in self._vm.drives.values())
        return self.process.may_move

    def let_stay(self) -> None:
        self.refuse_migration()
        self.process.may_move = False

    def counters(self) -> Counters:
        told = counters.look(self._vm)
        # Of the process that this is a connection to.
        self.step("counted")
        return told

    def take(self, request: PointRequest) -> PointInTime:
        self.step("take")
        self.refuse_migration()
        foreign = [point.installation for point in self.process.points if point.installation != self.installation]
        if self._vm.obstacle or foreign:
            found = self._vm.obstacle or f"a filter of installation {foreign[0]}"
            raise errors.Busy(f"Somebody else works on the VM's disks: {found}.")
        if self.process.points:
            raise errors.HeadstartError("A point in time of ours stands already: a dead run's, if not yours.")
        return MemoryPoint(self._vm, self, request)

    # -- after a dead run

    def recover(self) -> tuple[str, ...]:
        self.step("recover")
        return tuple(self._recover())

    def _recover(self) -> Iterator[str]:
        process, ours = self.process, self.installation
        if process.stopped_by == ours:
            yield "the VM, stopped by a dead run, was continued"
        if process.frozen_by == ours:
            yield "the guest, frozen by a dead run, was thawed"
        self.let_go()
        for export in [name for name, owner in process.exports.items() if owner == ours]:
            del process.exports[export]
            yield f"the export {export} of a dead run was removed"
        if isinstance(process.server, MemoryMachine) and process.server.installation == ours:
            process.server = None
            yield "the NBD server of a dead run was stopped"
        for point in process.points.copy():
            if point.installation == ours:
                process.points.remove(point)
                yield "the filters of a dead run were taken out"
            else:
                yield f"a point in time of installation {point.installation} was left alone"

    def __enter__(self) -> MemoryMachine:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def _layered(drive: Drive) -> Iterator[Bitmap]:
    found = dict.fromkeys(mark for image in drive.segments for mark in image.marks or ())
    return (Bitmap(mark, mark in (drive.top.marks or ()), persistent=True) for mark in found)


class _Live(MemoryReader):
    """``headstart.hypervisor.contract.LiveReader``."""

    def __init__(self, machine: MemoryMachine, drive: Drive, block_size: int) -> None:
        def fetch(block: int) -> int:
            machine.refuse_migration()
            return drive.content(block)

        super().__init__(drive.top.size, block_size, fetch, machine.step)
        self._drive = drive

    @property
    def uri(self) -> str:
        """Nobody else sees what is in our memory."""
        return ""

    def allocated(self) -> Iterator[Extent]:
        self._step("allocated")
        return blocks.to_extents(self._drive.allocated(), self._block_size, self._size)
