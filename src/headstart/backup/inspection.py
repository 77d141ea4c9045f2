"""A look at a VM: its disks, and what the guest has on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from headstart import errors, units
from headstart.backup import looking, transport
from headstart.backup.contact import Contact
from headstart.backup.context import Context
from headstart.backup.meeting import Asleep, meet
from headstart.guest import volumes
from headstart.guest.devices import GuestMap, Volume
from headstart.hypervisor.inventory import Disk
from headstart.state.values import Vm
from headstart.wire.qga import Qga


@dataclass(frozen=True, slots=True)
class Inspection:
    """``foreign``: bitmaps of other installations. ``device`` and ``volumes`` of a disk are the guest's, as far as an
    agent tells them and the device is proved."""

    vm: Vm
    disks: tuple[dict[str, Any], ...]
    left_out: tuple[dict[str, str], ...]
    foreign: tuple[str, ...]
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        return {
            "name": self.vm.name,
            "disks": list(self.disks),
            "left_out": list(self.left_out),
            "foreign": list(self.foreign),
            "notes": list(self.notes),
        }


def inspect(context: Context, vm: Vm) -> Inspection:
    """Look at a VM that may not be added yet; raises ``Unreachable``."""
    with meet(context, vm, Asleep.LOOK) as contact:
        devices, guest = _inside(contact)
        _try_qga(contact)
        disks = tuple(_disk(contact, disk, devices.get(disk.name, ""), guest) for disk in contact.inventory.disks)
        left_out = tuple({"name": each.name, "reason": each.reason} for each in contact.inventory.left_out)
        if contact.rules and not contact.machine.off:
            contact.notes += looking.select(contact, looking.now(contact), units.BLOCK_SIZE).notes
        return Inspection(vm, disks, left_out, tuple(contact.tracker.foreign()), tuple(contact.notes))


def _inside(contact: Contact) -> tuple[dict[str, str], GuestMap]:
    nothing = GuestMap((), (), ())
    if not contact.inside.expected:
        return {}, nothing
    try:
        return transport.devices(contact), contact.inside.agent().map()
    except errors.HeadstartError as error:
        contact.note(f"the guest was not looked at from inside: {error}")
        return {}, nothing


def _try_qga(contact: Contact) -> None:
    """Better heard when it is added than at the first backup. Of libvirt's domains libvirt tells."""
    if contact.vm.qga is None or contact.machine.off:
        return
    try:
        Qga(contact.vm.qga).close()
    except errors.Unreachable as error:
        contact.note(f"the guest's file systems cannot be frozen by qga: {error}")


def _disk(contact: Contact, disk: Disk, device: str, guest: GuestMap) -> dict[str, Any]:
    chosen = contact.choice(disk.name)
    return {
        "name": disk.name,
        "size": disk.size,
        "format": disk.format,
        "interface": disk.interface,
        "serial": disk.serial,
        "path": disk.layers[0].path if disk.layers else "",
        "persistent": disk.persistent,
        "tracking": chosen.way.value,
        "tracking_reason": chosen.why,
        "note": "; ".join(filter(None, (disk.unreadable, disk.untracked))),
        "device": device,
        "mounted": _mounted(guest, device),
        "volumes": [_volume(volume, guest) for volume in volumes.on_disk(guest, device)],
    }


def _volume(volume: Volume, guest: GuestMap) -> dict[str, Any]:
    return {
        "name": volume.label or volume.name,
        "device": volume.name,
        "kind": volume.kind,
        "size": volume.size,
        "mounted": _mounted(guest, volume.name),
    }


def _mounted(guest: GuestMap, device: str) -> list[dict[str, str]]:
    return [{"path": mount.point, "type": mount.type} for mount in guest.mounted_at(device)]


@dataclass(frozen=True, slots=True)
class Located:
    """Where a volume of the guest's lies. ``disks``: name, device in the guest, extents as start and length."""

    vm: str
    volume: str
    device: str
    kind: str
    mounted: str
    bytes: int
    disks: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        return asdict(self)


def locate(context: Context, name: str, what: str) -> Located:
    """Asked from inside the guest. Raises ``NotFound``, ``Unreachable``, and ``Unsupported`` where it is on a disk
    that is not proved, or in a place that cannot be told."""
    vm = context.journal.vm(name)
    with context.journal.lock(name, "identify"), meet(context, vm) as contact:
        agent = contact.inside.agent()
        proved = transport.devices(contact)
        place = volumes.find(agent.map(), what)
        disks = tuple(_extents(contact, proved, device, place) for device in sorted(place.extents))
        total = sum(length for disk in disks for _, length in disk["extents"])
        return Located(name, what, place.device, place.kind, place.mounted, total, disks, tuple(contact.notes))


def _extents(contact: Contact, proved: Mapping[str, str], device: str, place: volumes.Place) -> dict[str, Any]:
    found = next((disk for disk, its in proved.items() if its == device), None)
    if found is None:
        reasons = " ".join(contact.notes)
        raise errors.Unsupported(f"It lies on {device}, and which disk of the VM that is, is not known. {reasons}")
    return {
        "name": found,
        "device": device,
        "extents": [[extent.start, extent.length] for extent in place.extents[device]],
    }
