"""The images of a simulated VM that is off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headstart.blocks import Blocks
from headstart.hypervisor.contract import Bitmap, Disturbed, PointInTime, PointRequest, Protects
from headstart.hypervisor.inventory import Disk, Inventory
from headstart.hypervisor.memory.image import Drive
from headstart.hypervisor.memory.reader import MemoryReader
from headstart.hypervisor.memory.vm import MemoryVm
from headstart.hypervisor.resting import Resting


class MemoryImages(Resting):
    """``headstart.hypervisor.contract.Machine``, as ``headstart.hypervisor.offline`` has it."""

    def __init__(self, vm: MemoryVm) -> None:
        self._vm = vm
        self._touched = vm.touched
        self._drives = [drive for drive in vm.drives.values() if drive.plugged]

    # -- looking

    def inventory(self) -> Inventory:
        self._vm.step("offline inventory")
        return Inventory(tuple(map(self._disk, self._drives)), (), "memory")

    def _disk(self, drive: Drive) -> Disk:
        keeps = drive.top.persistent and not drive.segments
        return Disk(
            name=drive.name,
            size=drive.top.size,
            format=drive.chain[len(drive.segments)].format,
            serial=drive.name,
            layers=tuple(image.file(active=image is drive.top) for image in drive.chain),
            persistent=keeps,
            untracked="" if keeps else "its image keeps no bitmaps while the VM is off",
        )

    def bitmaps(self) -> Mapping[str, tuple[Bitmap, ...]]:
        self._vm.step("offline bitmaps")
        return {
            drive.name: tuple(
                Bitmap(
                    name,
                    record.recording,
                    not record.inconsistent and record.granularity == self._vm.block_size and image is drive.top,
                    persistent=True,
                )
                for image in drive.chain
                for name, record in image.stored.items()
            )
            for drive in self._drives
        }

    # -- reading

    def recorded(self, names: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        self._vm.step("offline recorded")
        return {disk: {name: self._stored(disk, name) for name in each} for disk, each in names.items()}

    def _stored(self, disk: str, name: str) -> Blocks:
        record = self._vm.drives[disk].top.stored.get(name)
        if record is None or record.inconsistent:
            # It was there at the first look.
            raise Disturbed(f"the image of disk {disk} was changed")
        return record.blocks.copy()

    def take(self, request: PointRequest) -> PointInTime:
        self._vm.step("offline take")
        self._vm.at_point = {drive.name: self._vm.contents(drive.name) for drive in self._drives}
        return MemoryRest(self, self._vm, request)

    def require_undisturbed(self) -> None:
        if self._vm.process is not None or self._vm.touched != self._touched:
            raise Disturbed("the VM was started while its images were read")

    def close(self) -> None:
        """Nothing is held."""


class MemoryRest:
    """``headstart.hypervisor.contract.PointInTime``."""

    protects = Protects.ALL
    consistency = "offline"
    freeze_seconds = pause_seconds = 0.0

    def __init__(self, images: MemoryImages, vm: MemoryVm, request: PointRequest) -> None:
        self._images = images
        self._vm = vm
        self._reads = request.reads
        self._sizes = {name: drive.top.size for name, drive in vm.drives.items()}
        self.notes: list[str] = []

    def recorded(self) -> Mapping[str, Mapping[str, Blocks]]:
        return self._images.recorded(self._reads)

    def reader(self, disk: str) -> MemoryReader:
        drive = self._vm.drives[disk]
        if drive.top.size != self._sizes[disk]:
            raise Disturbed(f"the image of disk {disk} was resized while it was read")
        return MemoryReader(drive.top.size, self._vm.block_size, drive.content, self._vm.step)

    def protected(self, disk: str) -> Blocks | None:
        return None

    def keep(self, disk: str, wanted: Blocks) -> None:
        """Nobody writes."""

    def uri(self, disk: str) -> str:
        return ""

    def check(self) -> None:
        self._vm.step("offline check")
        self._images.require_undisturbed()

    def release(self) -> float:
        return 0.0

    def __enter__(self) -> MemoryRest:
        return self

    def __exit__(self, *details: object) -> None:
        """Nothing is held."""
