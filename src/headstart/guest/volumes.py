"""What lies where: a mount point, a device or a volume's name, told as extents of the VM's disks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from headstart import errors
from headstart.extents import Extent
from headstart.guest.devices import GuestMap, Volume


@dataclass(frozen=True, slots=True)
class Place:
    """Where something of the guest's is. ``extents`` by the guest's name of each disk."""

    device: str
    kind: str
    mounted: str
    extents: Mapping[str, list[Extent]]


def find(guest: GuestMap, what: str) -> Place:
    """``what``: a path (the file system that holds it), a device (``vda1``, ``/dev/vg/home``), or a volume's name.

    Raises ``NotFound``, and ``Unsupported`` where it is not known on which disks it lies."""
    device, mounted = _device(guest, what)
    disk = next((disk for disk in guest.disks if disk.name == device), None)
    if disk is not None:
        return Place(device, "disk", mounted, {device: [Extent(0, disk.size)]})
    volume = guest.volume(device)
    if volume is None:
        raise errors.NotFound(f"{what!r} is on {device}, which is on no disk of this VM.")
    try:
        return Place(device, volume.kind, mounted, volume.extents())
    except ValueError:
        raise errors.Unsupported(
            f"On which parts of its disks {what!r} ({volume.label or volume.name}) lies cannot be told:"
            " it is encrypted, thin or mirrored."
        ) from None


def _device(guest: GuestMap, what: str) -> tuple[str, str]:
    """The kernel's name of the device, and where it is mounted if that was asked for."""
    name = what.removeprefix("/dev/")
    names = {disk.name for disk in guest.disks} | {volume.name for volume in guest.volumes}
    if name in names:
        return name, ""
    for volume in guest.volumes:
        if volume.label and name in labels(volume.label):
            return volume.name, ""
    if what.startswith("/") and not what.startswith("/dev/"):
        return _holding(guest, what)
    raise errors.NotFound(
        f"The guest has no volume {what!r}. It has: {', '.join(sorted(names))}."
        " A path names the file system that holds it."
    )


def labels(label: str) -> set[str]:
    """How a device-mapper name may be given: LVM doubles hyphens within names and joins them by a single one."""
    joined = label.replace("--", "\0")
    return {label, f"mapper/{label}", joined.replace("-", "/", 1).replace("\0", "-")}


def _holding(guest: GuestMap, path: str) -> tuple[str, str]:
    """The last one mounted at the deepest place hides the others."""
    wanted = PurePosixPath(path)
    found = [mount for mount in guest.mounts if wanted.is_relative_to(mount.point)]
    if not found:
        raise errors.NotFound(f"No file system on a disk of this VM is mounted at {path!r} or above.")
    deepest = max(enumerate(found), key=lambda each: (len(PurePosixPath(each[1].point).parts), each[0]))[1]
    return deepest.device, deepest.point


def on_disk(guest: GuestMap, device: str) -> list[Volume]:
    """The volumes that lie on a disk of the guest's, at least in part."""
    return [
        volume
        for volume in guest.volumes
        if volume.segments and any(stripe.disk == device for each in volume.segments for stripe in each.stripes)
    ]
