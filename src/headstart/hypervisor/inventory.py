"""Which disks a VM has, and what is known of them from outside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One layer of a disk's backing chain. The active layer changes all the time: its ``size`` and
    ``modified_ns`` are None. No device number: on many hosts it changes with every start."""

    path: str
    driver: str
    inode: int = 0
    size: int | None = None
    modified_ns: int | None = None


class Recorder(Enum):
    """Where a disk's changes are recorded. To whoever starts and reads marks it is the same: ``Bitmaps``."""

    #: Marks are bitmaps.
    BITMAP = "bitmap"
    #: Marks are overlays of ours: what is allocated in them has changed. They outlive QEMU, however it ends, and
    #: ``settle`` takes from them what has been read.
    OVERLAY = "overlay"
    #: Marks are eras of a filter in the guest: what was written in them or later has changed. They outlive the guest's
    #: boots, and are its word.
    ERA = "era"


@dataclass(frozen=True, slots=True)
class Disk:
    """A virtual disk as the guest sees it. ``name`` is stable and unique within the VM."""

    name: str
    size: int
    format: str
    interface: str = ""
    serial: str = ""
    #: World wide name, 16 hexadecimal digits, and PCI address as a Linux guest writes it; empty if not known.
    wwn: str = ""
    pci: str = ""
    layers: tuple[ImageFile, ...] = ()
    #: Its marks survive a clean end of the VM.
    persistent: bool = False
    recorder: Recorder = Recorder.BITMAP
    #: How many of ``layers``, from the top, are overlays of ours.
    overlays: int = 0
    #: Why no overlay of ours records its changes; empty if one does, or nobody asked for it.
    unlayered: str = ""
    #: The guest's own name of it, where nobody has to find that out.
    device: str = ""
    #: Why the running disk cannot be read from outside; empty if it can.
    unreadable: str = ""
    #: It cannot, but a point in time shows what was wanted of it, and can be had while it runs.
    glimpsed: bool = False
    #: Why its files alone do not tell what it holds, as with an offset into them; empty if they do.
    overridden: str = ""
    #: Why nothing can record its changes; empty if bitmaps can. Then only comparing tells what changed.
    untracked: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A drive that is not backed up, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Inventory:
    disks: tuple[Disk, ...]
    left_out: tuple[LeftOut, ...] = ()
    #: How the VM was started: what a restore needs besides disks.
    definition: str = ""
    #: Files to keep with a backup, by kind (``uefi-variables``).
    files: tuple[tuple[str, Path], ...] = ()

    def disk(self, name: str) -> Disk | None:
        return next((disk for disk in self.disks if disk.name == name), None)
