"""A connection to a simulated VM: what it reaches, and what it may do there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Action, Migrating, Remove, Start, Stop
from headstart.hypervisor.memory.image import Drive, Image, Record
from headstart.hypervisor.memory.vm import MemoryVm


class Connection:
    """To one process of the VM. As with QEMU's monitors, an installation has one at a time."""

    def __init__(self, vm: MemoryVm, installation: str, block_size: int) -> None:
        if block_size != vm.block_size:
            raise ValueError(f"the VM keeps blocks of {vm.block_size} bytes")
        if vm.process is None:
            raise errors.Unreachable("Nobody listens on the QMP socket: is the VM running?")
        if installation in vm.process.clients:
            raise errors.Unreachable("The monitor does not greet: somebody else is connected.")
        self._vm = vm
        self.process = vm.process
        self.process.clients[installation] = self
        self.installation = installation
        self._served = 0
        self._alive = True

    # -- the life of a connection

    def close(self) -> None:
        """Standing points stay behind: release them first."""
        self._alive = False
        self.process.clients.pop(self.installation, None)

    def die(self, *, guarded: bool = True) -> None:
        """As by SIGKILL of the program: nothing more of it reaches the VM. Its guard process undoes a stop and
        a freeze, unless it died too."""
        self.close()
        if guarded:
            self.let_go()

    def let_go(self) -> None:
        if self.process.stopped_by == self.installation:
            self.process.stopped_by = ""
        if self.process.frozen_by == self.installation:
            self.process.frozen_by = ""

    @property
    def reaches(self) -> bool:
        """The VM still runs in the process that this is a connection to."""
        return self._alive and self._vm.process is self.process

    def step(self, name: str) -> None:
        """The world goes on; afterwards the VM may be gone."""
        self._vm.step(name)
        if not self.reaches:
            raise errors.Unreachable("The connection to the VM ended.")

    def drive(self, disk: str) -> Drive:
        drive = self._vm.drives.get(disk)
        if drive is None or not drive.plugged:
            raise errors.NotFound(f"The VM has no disk '{disk}' any longer: it was unplugged.", disk=disk)
        return drive

    # -- bitmaps

    def apply(self, actions: Sequence[Action]) -> None:
        """All or nothing, with no write under way."""
        self._refuse_change(actions)
        self._vm.drain()
        drives = self._vm.drives.values()
        undo = [(image, dict(image.bitmaps), image.marks) for drive in drives for image in drive.chain]
        chains = [(drive, list(drive.chain)) for drive in drives]
        removed: list[Remove] = []
        try:
            for action in self._layered(actions):
                match action:
                    case Start():
                        self._start(action)
                    case Stop():
                        self._stop(action)
                    case Remove():
                        self._bearer(action).require_removable(action.name)
                        removed.append(action)
        except BaseException:
            for image, bitmaps, marks in undo:
                image.bitmaps, image.marks = bitmaps, marks
            for drive, chain in chains:
                drive.chain = chain
            raise
        # QEMU lets go of a name only when the whole transaction has succeeded.
        for action in removed:
            self._bearer(action).remove_bitmap(action.name)
        for drive in drives:
            names = [image.marks for image in drive.segments[:-1]]
            drive.commit_segments(next((number for number, each in enumerate(names) if each), len(names)))

    def _layered(self, actions: Sequence[Action]) -> Iterator[Action]:
        """Does what concerns marks that are overlays; what is left is for bitmaps."""
        changes: dict[str, list[Action]] = {}
        for action in actions:
            drive = self.drive(action.disk)
            if not drive.segments:
                yield action
            elif not isinstance(action, Remove):
                changes.setdefault(action.disk, []).append(action)
            elif not self._forget(drive, action):
                yield action
        for disk, each in changes.items():
            self._begin(self.drive(disk), each)

    def _begin(self, drive: Drive, changes: Sequence[Action]) -> None:
        known = {mark for image in drive.segments for mark in image.marks or ()}
        started = [each.name for each in changes if isinstance(each, Start)]
        stopped = [each.name for each in changes if isinstance(each, Stop)]
        if known & set(started) or not set(stopped) <= known:
            raise errors.HeadstartError("There is such a mark already, or none.")
        going = [mark for mark in drive.top.marks or () if mark not in stopped]
        drive.top.flush()
        self._vm.cover(drive, (*going, *started))

    @staticmethod
    def _forget(drive: Drive, action: Remove) -> bool:
        """Whether there was such a mark."""
        marked = [image for image in drive.segments if action.name in (image.marks or ())]
        for image in marked:
            image.marks = tuple(mark for mark in image.marks or () if mark != action.name)
        return bool(marked)

    def settle(self, disks: Sequence[str]) -> None:
        self.step("settle")
        self.refuse_migration()
        for disk in disks:
            self._vm.drain()
            drive = self.drive(disk)
            drive.commit_segments(len(drive.segments) - 1)
            self.step("settled")

    def flush(self, disks: Sequence[str]) -> None:
        self.step("flush")
        for disk in disks:
            self.drive(disk).top.flush()

    def _start(self, action: Start) -> None:
        top = self.drive(action.disk).top
        if self._vm.checkpoints and not top.persistent:
            raise errors.HeadstartError(f"checkpoint for disk {action.disk} unsupported for storage type raw")
        if action.name in top.bitmaps:
            raise errors.HeadstartError(f"Bitmap already exists: {action.name}")
        top.bitmaps[action.name] = Record(self._vm.block_size, persistent=top.persistent)

    def _stop(self, action: Stop) -> None:
        top = self.drive(action.disk).top
        # A changed copy: the transaction may have to be undone.
        record = self._readable(action.disk, action.name).copy()
        record.recording = self._vm.checkpoints
        top.bitmaps[action.name] = record

    def _bearer(self, action: Remove) -> Image:
        for image, name, _ in self.drive(action.disk).records():
            if name == action.name:
                return image
        raise errors.HeadstartError(f"Dirty bitmap '{action.name}' not found")

    def _readable(self, disk: str, name: str) -> Record:
        record = self.drive(disk).top.bitmaps.get(name)
        if record is None:
            raise errors.HeadstartError(f"Dirty bitmap '{name}' not found")
        if record.inconsistent:
            raise errors.HeadstartError(f"Bitmap '{name}' is inconsistent and cannot be used")
        return record

    def union(self, disk: str, tracks: Sequence[str]) -> Blocks:
        drive = self.drive(disk)
        if drive.segments:
            return Blocks().union(*map(drive.allocated_by, tracks))
        return Blocks().union(*(self._readable(disk, name).blocks for name in tracks))

    def refuse_migration(self) -> None:
        if self._vm.migrating:
            raise Migrating("The VM is being migrated (active): wait until it has arrived.")

    def _refuse_change(self, actions: Sequence[Action]) -> None:
        started = [self.drive(action.disk) for action in actions if isinstance(action, Start)]
        if self.process.may_move and any(drive.segments for drive in started):
            raise Migrating("The VM was made ready to be migrated.")

    def refuse_second_job(self) -> None:
        if self._vm.checkpoints and any(point.installation == self.installation for point in self.process.points):
            raise AssertionError("through libvirt there is one job at a time")

    # -- the NBD server, of which there is one

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        if self.process.server not in (None, self):
            raise errors.Busy("Another tool runs the NBD server of this QEMU (there is only one).")
        self.process.server = self
        self._served += 1
        try:
            yield
        finally:
            self._served -= 1
            if self._served == 0 and self._alive:
                self.process.server = None

    @contextlib.contextmanager
    def exported(self, role: str) -> Iterator[None]:
        name = f"hs-{self.installation}-{role}"
        if name in self.process.exports:
            raise errors.HeadstartError(f"Block export id '{name}' is already in use")
        self.process.exports[name] = self.installation
        try:
            yield
        finally:
            if self._alive:
                del self.process.exports[name]
