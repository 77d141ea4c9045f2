"""How changes of a disk are learned: the best way that it allows, or what its owner wants, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from headstart.hypervisor.inventory import Disk, Inventory, Recorder


class Wish(Enum):
    """What the owner wants for the disks of a VM."""

    AUTO = "auto"
    #: Bitmaps, also where they are lost with the end of QEMU.
    BITMAP = "bitmap"
    #: Overlays for disks that keep no bitmaps, and for them something to start the VM from.
    OVERLAY = "overlay"
    #: Nothing is to record anything: all is read.
    COMPARE = "compare"


class Way(Enum):
    BITMAP = "bitmap"
    OVERLAY = "overlay"
    ERA = "era"
    COMPARISON = "comparison"


ASKED = "it was asked for (--track compare)"


@dataclass(frozen=True, slots=True)
class Choice:
    """``why`` is for people: what speaks for it, or what stands in the way of a better one."""

    way: Way
    why: str

    def __str__(self) -> str:
        return f"{self.way.value}: {self.why}"


def choose(wish: Wish, disk: Disk) -> Choice:
    """``disk`` as its driver tells it, or after ``applied``."""
    if wish is Wish.COMPARE:
        return Choice(Way.COMPARISON, ASKED)
    if disk.untracked:
        return Choice(Way.COMPARISON, f"{disk.untracked}{_because(disk.unlayered)}")
    if disk.recorder is Recorder.ERA:
        return Choice(Way.ERA, "a filter in the guest records it, which outlasts the guest's boots and is its word")
    if disk.recorder is Recorder.OVERLAY:
        return Choice(Way.OVERLAY, "it stands on an overlay of ours, whose record outlasts every end of QEMU")
    if disk.overlays:
        return Choice(Way.BITMAP, f"no overlay records it{_because(disk.unlayered)}")
    if disk.persistent:
        return Choice(Way.BITMAP, "its image keeps bitmaps, which outlast a clean end of QEMU")
    lost = "bitmaps of a raw image are lost with each end of QEMU, and then all is read"
    if wish is Wish.AUTO:
        return Choice(Way.BITMAP, f"{lost} (--track overlay keeps the record)")
    return Choice(Way.BITMAP, f"{lost}{_because(disk.unlayered)}")


def _because(obstacle: str) -> str:
    return f"; no overlay: {obstacle}" if obstacle else ""


def applied(wish: Wish, inventory: Inventory) -> Inventory:
    """Disks that are to be compared have nothing that records."""
    if wish is not Wish.COMPARE:
        return inventory
    return replace(inventory, disks=tuple(_compared(inventory.disks)))


def _compared(disks: Iterable[Disk]) -> Iterable[Disk]:
    return (replace(disk, untracked=disk.untracked or ASKED) for disk in disks)
