"""What a guest and an owner do to a simulated VM. Numbers of disks and blocks are taken modulo what there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from headstart.hypervisor.memory.image import ZERO
from headstart.hypervisor.memory.vm import Visible
from tests.kit.world import BLOCK, World

#: Content that many blocks have: the same bytes each time.
COMMON = 10**9


@dataclass(frozen=True, slots=True)
class GuestWrite:
    """``again``: the content that the next block has."""

    disk: int
    block: int
    content: Literal["fresh", "zero", "common", "again"] = "fresh"
    disturbs = False

    def happen(self, world: World) -> None:
        if not world.vm.can_write:
            return
        disk, block = place(world, self.disk, self.block)
        number = {"fresh": None, "zero": ZERO, "common": COMMON}.get(self.content, self._neighbour(world, disk, block))
        world.vm.write(disk, block, number)

    @staticmethod
    def _neighbour(world: World, disk: str, block: int) -> int:
        return world.vm.contents(disk)[(block + 1) % world.vm.count(disk)]


@dataclass(frozen=True, slots=True)
class GuestBegins:
    """A write that is under way until ``GuestFinishes``, or until QEMU drains the disk."""

    disk: int
    block: int
    visible: Visible = "torn"
    disturbs = False

    def happen(self, world: World) -> None:
        if world.vm.can_write:
            world.vm.begin(*place(world, self.disk, self.block), visible=self.visible)


@dataclass(frozen=True, slots=True)
class GuestFinishes:
    """All writes under way."""

    disturbs = False

    def happen(self, world: World) -> None:
        if world.vm.can_write:
            world.vm.drain()


@dataclass(frozen=True, slots=True)
class GuestDiscards:
    disk: int
    block: int
    disturbs = False

    def happen(self, world: World) -> None:
        if world.vm.can_write:
            world.vm.discard(*place(world, self.disk, self.block))


@dataclass(frozen=True, slots=True)
class SwapMoves:
    """The guest's swap is elsewhere on a disk, in blocks, or gone."""

    disk: int
    first: int
    count: int
    disturbs = False

    def happen(self, world: World) -> None:
        name = sorted(world.vm.drives)[self.disk % len(world.vm.drives)]
        world.swaps.pop(name, None)
        if self.count:
            world.swaps[name] = range(self.first, self.first + self.count)


Deed = Literal[
    "restart",
    "kill",
    "turn off",
    "overlay",
    "commit",
    "discard overlay",
    "unplug",
    "plug",
    "obstacle",
    "migrate",
    "arrive",
    "arrive without bitmaps",
    "scratch full",
    "foreign server",
    "take filters out",
]
DEEDS: tuple[Deed, ...] = get_args(Deed)


@dataclass(frozen=True, slots=True)
class OwnerDoes:
    """Something that may well make a run fail that is under way."""

    deed: Deed
    disk: int = 0
    disturbs = True

    def happen(self, world: World) -> None:
        if world.vm.process is not None:
            getattr(self, "_" + self.deed.replace(" ", "_"))(world)

    def _name(self, world: World) -> str:
        drives = world.vm.drives
        return sorted(drives)[self.disk % len(drives)]

    def _restart(self, world: World) -> None:
        world.vm.restart()

    def _kill(self, world: World) -> None:
        world.vm.kill()
        world.vm.start()

    def _turn_off(self, world: World) -> None:
        world.vm.stop()

    def _overlay(self, world: World) -> None:
        world.vm.overlay(self._name(world))

    def _commit(self, world: World) -> None:
        name = self._name(world)
        if world.vm.drives[name].owners > 0:
            world.vm.commit(name)

    def _discard_overlay(self, world: World) -> None:
        world.discard_overlay(self._name(world))

    def _unplug(self, world: World) -> None:
        if sum(drive.plugged for drive in world.vm.drives.values()) > 1:
            world.vm.unplug(self._name(world))

    def _plug(self, world: World) -> None:
        world.vm.plug(self._name(world))

    def _obstacle(self, world: World) -> None:
        world.vm.obstacle = "a job of somebody"

    def _migrate(self, world: World) -> None:
        world.vm.migrating = True

    def _arrive(self, world: World) -> None:
        world.vm.migrate(carried=True)

    def _arrive_without_bitmaps(self, world: World) -> None:
        world.vm.migrate(carried=False)

    def _scratch_full(self, world: World) -> None:
        world.vm.scratch_bytes = world.vm.scratch_used()

    def _foreign_server(self, world: World) -> None:
        assert world.vm.process is not None
        if world.vm.process.server is None:
            world.vm.process.server = object()

    def _take_filters_out(self, world: World) -> None:
        """Whoever does this to a point of ours loses our backup, and nothing else."""
        if world.vm.process is not None and not world.taking:
            world.vm.process.points.clear()


@dataclass(frozen=True, slots=True)
class OwnerStarts:
    """A VM that is off. No backup fails because of it."""

    disturbs = False

    def happen(self, world: World) -> None:
        if world.vm.process is None:
            world.vm.start()


@dataclass(frozen=True, slots=True)
class Resize:
    """By so many blocks, and to an odd number of sectors or not."""

    disk: int
    blocks: int
    odd: bool = False
    disturbs = True

    def happen(self, world: World) -> None:
        if world.resizable:
            name, _ = place(world, self.disk, 0)
            count = max(1, world.vm.count(name) + self.blocks)
            world.vm.resize(name, count * BLOCK - (512 if self.odd else 0))


@dataclass(frozen=True, slots=True)
class ShrinkAndGrow:
    """Cut so many blocks off and add them again: neither the size tells, nor any bitmap."""

    disk: int
    blocks: int
    disturbs = True

    def happen(self, world: World) -> None:
        if world.resizable:
            name, _ = place(world, self.disk, 0)
            before = world.vm.drives[name].top.size
            world.vm.resize(name, max(1, world.vm.count(name) - self.blocks) * BLOCK)
            world.vm.resize(name, before)


def place(world: World, disk: int, block: int) -> tuple[str, int]:
    drives = world.vm.drives
    name = sorted(drives)[disk % len(drives)]
    return name, block % world.vm.count(name)
