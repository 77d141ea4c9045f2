"""A point in time of a simulated VM: read through filters, or pushed into files by QEMU's own jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import PointRequest, Protects, of_disk
from headstart.hypervisor.memory.connection import Connection
from headstart.hypervisor.memory.process import Copies, Filters
from headstart.hypervisor.memory.reader import MemoryReader
from headstart.hypervisor.memory.vm import MemoryVm


class MemoryPoint:
    """``headstart.hypervisor.contract.PointInTime``. A disk in an iothread makes it a pushed one."""

    def __init__(self, vm: MemoryVm, connection: Connection, request: PointRequest) -> None:
        self._vm = vm
        self._connection = connection
        self._drives = [drive for drive in vm.drives.values() if drive.plugged]
        self._pushed = any(drive.iothread for drive in self._drives)
        self._sizes = {drive.name: drive.top.size for drive in self._drives}
        self._offers = contextlib.ExitStack()
        self._filters = Filters(connection.installation, {})
        self._reads = request.reads
        self._told: dict[str, dict[str, Blocks]] = {}
        self.protects = Protects.WANTED if self._pushed else Protects.ALL
        self.consistency = "crash"
        self.freeze_seconds = 0.0
        self.pause_seconds = 0.0
        self.notes: list[str] = []
        try:
            if vm.checkpoints:
                self._read_before()
            self._require_space(request)
            connection.step("prepared")
            with self._frozen(request.freeze):
                self._stand(request)
            if self._pushed:
                self._copy()
            else:
                self._offer()
        except BaseException:
            self._withdraw()
            raise

    # -- how it comes to stand

    def _read_before(self) -> None:
        """A job tells one bitmap of each disk, and at the point only one job runs: the newest is left to that."""
        for disk, names in self._reads.items():
            self._connection.step("read before")
            self._told[disk] = {name: self._connection.union(disk, [name]) for name in names[:-1]}

    def _read_at_point(self) -> None:
        """What the newest recorded, all older ones have recorded as well."""
        for disk, names in self._reads.items():
            newest = self._connection.union(disk, names[-1:])
            self._told[disk] = {name: found | newest for name, found in self._told[disk].items()}
            self._told[disk][names[-1]] = newest

    def _require_space(self, request: PointRequest) -> None:
        needed = sum(request.reserve.values())
        if self._pushed:
            needed = sum(
                blocks.total_bytes(self._wanted(request, disk), self._vm.block_size, size)
                for disk, size in self._sizes.items()
            )
        if self._vm.scratch_bytes is not None and needed > self._vm.scratch_bytes:
            raise errors.NoSpace(f"The point in time may need {needed} bytes.", needed=needed)

    def _wanted(self, request: PointRequest, disk: str) -> Blocks:
        ended = [stop.name for stop in request.ends if stop.disk == disk]
        return request.wanted.get(disk, Blocks()) | self._connection.union(disk, ended)

    @contextlib.contextmanager
    def _frozen(self, wanted: bool) -> Iterator[None]:
        self._began = began = self._vm.clock
        if not wanted or self._vm.agent != "answers":
            if wanted and self._vm.agent == "silent":
                self.notes.append("The guest agent (qga) does not answer.")
            yield
            return
        self._connection.process.frozen_by = self._connection.installation
        try:
            self._connection.step("frozen")
            yield
        finally:
            if self._connection.reaches:
                self._connection.process.frozen_by = ""
        self.freeze_seconds = self._vm.clock - began
        self.consistency = "filesystem"

    def _stand(self, request: PointRequest) -> None:
        self._connection.refuse_migration()
        if self._pushed:
            # As QEMU's driver: all in one transaction, and only here the old bitmaps freeze.
            self._connection.apply((*request.starts, *request.ends))
            self._insert({disk: self._wanted(request, disk) for disk in self._sizes})
        else:
            self._connection.apply(request.starts)
            # Here the guest goes on: what it writes now is in the old bitmaps, the new ones, and the point.
            self._connection.step("starts stand")
            with self._paused(len(self._drives) > 1 and self._vm.can_write):
                size = self._vm.block_size
                self._insert({disk: blocks.everything(bytes_, size) for disk, bytes_ in self._sizes.items()})
        self._connection.step("point stands")

    @contextlib.contextmanager
    def _paused(self, needed: bool) -> Iterator[None]:
        if not needed:
            yield
            return
        began = self._vm.clock
        self._vm.drain()
        self._connection.process.stopped_by = self._connection.installation
        try:
            self._connection.step("stopped")
            yield
        finally:
            if self._connection.reaches:
                self._connection.process.stopped_by = ""
        self.pause_seconds = self._vm.clock - began

    def _insert(self, protected: dict[str, Blocks]) -> None:
        self._vm.drain()
        self._filters.disks = {disk: Copies(wanted) for disk, wanted in protected.items()}
        if self._vm.checkpoints:
            self._read_at_point()
        self._connection.process.points.append(self._filters)
        self._vm.at_point = {disk: self._vm.contents(disk) for disk in self._sizes}

    def _offer(self) -> None:
        self._offers.enter_context(self._connection.served())
        for disk in self._sizes:
            self._offers.enter_context(self._connection.exported(f"point-{disk}"))

    def _copy(self) -> None:
        """The jobs work; afterwards the point is files, and the guest and its VM are rid of us."""
        for disk, copies in self._filters.disks.items():
            for block in copies.protected:
                copies.saved.setdefault(block, self._vm.drives[disk].content(block))
            self._connection.step("copied")
        self._window = self._vm.clock - self._began
        self._connection.process.points.remove(self._filters)

    # -- while it stands

    def recorded(self) -> dict[str, dict[str, Blocks]]:
        if self._vm.checkpoints:
            return self._told
        self._vm.step("recorded")
        return {disk: {name: self._connection.union(disk, [name]) for name in names}
                for disk, names in self._reads.items()}  # fmt: skip

    def reader(self, disk: str) -> MemoryReader:
        return MemoryReader(
            of_disk(self._sizes, disk),
            self._vm.block_size,
            lambda block: self._fetch(disk, block),
            self._vm.step,
        )

    def _fetch(self, disk: str, block: int) -> int:
        copies = self._filters.disks[disk]
        self._let_go_of_a_migrating_vm()
        if not self._pushed and not self._stands:
            raise errors.PointLost("The VM is gone, or somebody took the point in time away.")
        if copies.broken or block not in copies.protected:
            raise errors.PointLost(f"Block {block} of disk {disk} is not protected (any longer).")
        return copies.saved.get(block, self._vm.drives[disk].content(block))

    def _let_go_of_a_migrating_vm(self) -> None:
        if self._vm.migrating and not self._pushed:
            self._withdraw()
            self._connection.refuse_migration()

    @property
    def _stands(self) -> bool:
        return self._connection.reaches and self._filters in self._connection.process.points

    def protected(self, disk: str) -> Blocks | None:
        return self._filters.disks[disk].protected.copy() if self._pushed else None

    def keep(self, disk: str, wanted: Blocks) -> None:
        self._vm.step("keep")
        if self._pushed:
            return
        if not self._stands:
            raise errors.PointLost("The VM is gone, or somebody took the point in time away.")
        if self._vm.checkpoints:
            return
        copies = self._filters.disks[disk]
        copies.protected &= wanted
        copies.saved = {block: content for block, content in copies.saved.items() if block in wanted}

    def uri(self, disk: str) -> str:
        return ""

    def check(self) -> None:
        self._vm.step("check")
        if self._pushed:
            return
        self._let_go_of_a_migrating_vm()
        unplugged = [drive.name for drive in self._drives if not drive.plugged]
        if unplugged or not self._stands:
            raise errors.PointLost(f"The disks were changed by somebody else: {unplugged or 'the point is gone'}.")

    def release(self) -> float:
        if self._pushed:
            return self._window
        self._connection.step("release")
        self._withdraw()
        self._window = self._vm.clock - self._began
        self._vm.step("released")
        return self._window

    def _withdraw(self) -> None:
        """A dead connection reaches nothing: then all stays until ``recover``."""
        self._offers.close()
        if self._stands:
            self._connection.process.points.remove(self._filters)

    def __enter__(self) -> MemoryPoint:
        return self

    def __exit__(self, *details: object) -> None:
        self._withdraw()
