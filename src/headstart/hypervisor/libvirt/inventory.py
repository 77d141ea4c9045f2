"""Which disks a domain has, from its XML (libvirt's formatdomain)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from headstart import errors
from headstart.hypervisor import images
from headstart.hypervisor.inventory import Disk, ImageFile, LeftOut
from headstart.hypervisor.libvirt import emulator
from headstart.hypervisor.qemu import versions
from headstart.hypervisor.recording import Stack

#: Names of the virtio-serial ports of our agent and of QEMU's.
AGENT_PORT, QGA_PORT = "org.headstart.agent.0", "org.qemu.guest_agent.0"
#: The release since which QEMU survives an NBD client that leaves a disk in an iothread.
SURVIVES_IOTHREAD = versions.UNLOCKED[0] * 1_000_000 + versions.UNLOCKED[1] * 1_000
UNTRACKED = "its format '{}' keeps no bitmaps, so that libvirt cannot have checkpoints of it (qcow2 can)"
OLD_QCOW2 = "qcow2, compat=0.10"
IOTHREAD = (
    "its device is served by an iothread, and QEMU before 9.0 aborts when an NBD client leaves such a disk: update"
    " QEMU, take the iothread away, or leave the disk out (--exclude-disk)"
)


@dataclass(frozen=True, slots=True)
class Channel:
    """A virtio-serial port of the guest's."""

    path: str
    connected: bool


@dataclass(frozen=True, slots=True)
class Attachment:
    """A disk; libvirt knows it by the name of its target. ``unsafe``: an NBD client may end this VM. ``shared``: other
    VMs may write to it. ``stack``: overlays of ours record it, or will."""

    disk: Disk
    unsafe: bool
    shared: bool = False
    stack: Stack | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The domain at one moment. ``targets`` are those of all disks, also of those that are left out."""

    attachments: tuple[Attachment, ...]
    left_out: tuple[LeftOut, ...]
    targets: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]
    channels: dict[str, Channel]
    #: User and group that QEMU runs as; None: not told.
    owner: tuple[int, int] | None

    def attachment(self, disk: str) -> Attachment:
        for attachment in self.attachments:
            if attachment.disk.name == disk:
                return attachment
        raise errors.NotFound(f"The VM has no disk '{disk}' any longer: it was unplugged.", disk=disk)

    def stack(self, disk: str) -> Stack:
        """Raises ``Busy`` where overlays do not record the disk any longer."""
        found = self.attachment(disk).stack
        if found is None:
            raise errors.Busy(f"Somebody changed the images of disk {disk} just now (a snapshot?): try again.")
        return found


def parse(xml: str, size_of: Callable[[str], int], excluded: Container[str]) -> Look:
    """``size_of`` tells the bytes of a disk by its target."""
    domain = ElementTree.fromstring(xml)
    attachments, left_out, targets = [], [], []
    for element in domain.iterfind("devices/disk"):
        target = _attribute(element, "target", "dev")
        if element.get("device", "disk") == "disk" and element.find("source") is not None:
            targets.append(target)
        reason = _reason_to_leave_out(element, target, excluded)
        if reason:
            left_out.append(LeftOut(target, reason))
        else:
            attachments.append(_attachment(domain, element, target, size_of(target)))
    return Look(
        tuple(attachments),
        tuple(left_out),
        tuple(targets),
        tuple(_files(domain)),
        dict(channels(domain)),
        _owner(domain),
    )


def _reason_to_leave_out(element: ElementTree.Element, target: str, excluded: Container[str]) -> str:
    device = element.get("device", "disk")
    if target in excluded:
        return "excluded"
    if device in ("cdrom", "floppy"):
        return "removable (CD-ROM or floppy)"
    if device == "lun":
        return "a SCSI device that is passed through"
    if element.find("source") is None:
        return "no medium"
    if element.find("readonly") is not None:
        return "read-only"
    if element.find("transient") is not None:
        return "transient: what is written to it is thrown away"
    return ""


def _attachment(domain: ElementTree.Element, element: ElementTree.Element, target: str, size: int) -> Attachment:
    form = _attribute(element, "driver", "type") or "raw"
    unsafe = _in_iothread(domain, element) and _version(domain) < SURVIVES_IOTHREAD
    tracked = form == "qcow2" and not _is_old_qcow2(element)
    disk = Disk(
        name=target,
        size=size,
        format=form,
        interface=_attribute(element, "target", "bus"),
        serial=element.findtext("serial", ""),
        wwn=element.findtext("wwn", ""),
        pci=_pci(element),
        layers=tuple(_layers(element, form)),
        persistent=tracked,
        unreadable=IOTHREAD if unsafe else "",
        overridden=_overridden(element),
        untracked="" if tracked else UNTRACKED.format(form if form != "qcow2" else OLD_QCOW2),
    )
    return Attachment(disk, unsafe, shared=element.find("shareable") is not None)


def _overridden(element: ElementTree.Element) -> str:
    """libvirt's formatdomain: a part of a file, or a key beside it."""
    if next(element.iter("slices"), None) is not None or next(element.iter("encryption"), None) is not None:
        return "it is a part of its image file, or encrypted"
    return ""


def _version(domain: ElementTree.Element) -> int:
    return emulator.version(domain.findtext("name", ""), domain.findtext("devices/emulator", ""))


def _is_old_qcow2(element: ElementTree.Element) -> bool:
    """Version 2 of the format has no place for bitmaps (QEMU's docs/interop/qcow2.txt: magic, then the version)."""
    path = _attribute(element, "source", "file") or _attribute(element, "source", "dev")
    try:
        with open(path, "rb") as file:
            return file.read(8) == b"QFI\xfb\x00\x00\x00\x02"
    except OSError:
        return False


def _in_iothread(domain: ElementTree.Element, element: ElementTree.Element) -> bool:
    """By itself (virtio-blk), or by its controller (virtio-scsi)."""
    driver = element.find("driver")
    if driver is not None and (driver.get("iothread") or driver.find("iothreads") is not None):
        return True
    index = _attribute(element, "address", "controller")
    if _attribute(element, "target", "bus") != "scsi" or not index:
        return False
    controller = domain.find(f"devices/controller[@type='scsi'][@index='{index}']/driver")
    return controller is not None and (bool(controller.get("iothread")) or controller.find("iothreads") is not None)


def _layers(element: ElementTree.Element, form: str) -> Iterator[ImageFile]:
    """The active layer, then its backing files; libvirt knows those of a running domain."""
    yield _layer(element, form, active=True)
    below = element.find("backingStore")
    while below is not None and below.get("type") is not None:
        yield _layer(below, _attribute(below, "format", "type"), active=False)
        below = below.find("backingStore")


def _layer(element: ElementTree.Element, form: str, *, active: bool) -> ImageFile:
    source = element.find("source")
    assert source is not None, "a disk without a medium is left out"
    path = source.get("file") or source.get("dev")
    if path is not None:
        return images.image_file(Path(path), form, active=active)
    return ImageFile(":".join(value for _, value in sorted(source.attrib.items()) if value), form)


def _pci(element: ElementTree.Element) -> str:
    """As libvirt numbers the buses; the guest's firmware usually does it alike, and a proof decides."""
    address = element.find("address")
    if address is None or address.get("type") != "pci":
        return ""
    numbers = [int(address.get(name, "0"), 16) for name in ("domain", "bus", "slot", "function")]
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


def _files(domain: ElementTree.Element) -> Iterator[tuple[str, Path]]:
    path = (domain.findtext("os/nvram") or _attribute(domain, "os/nvram/source", "file")).strip()
    if path:
        yield "uefi-variables", Path(path)


def channels(domain: ElementTree.Element) -> Iterator[tuple[str, Channel]]:
    """Virtio-serial ports by their names."""
    for element in domain.iterfind("devices/channel"):
        target = element.find("target")
        if target is not None and target.get("type") == "virtio":
            path = _attribute(element, "source", "path")
            yield target.get("name", ""), Channel(path, target.get("state") == "connected")


def _owner(domain: ElementTree.Element) -> tuple[int, int] | None:
    for label in domain.iterfind("seclabel"):
        if label.get("model") == "dac":
            return parse_owner(label.findtext("label", ""))
    return None


def parse_owner(label: str) -> tuple[int, int] | None:
    """``+64055:+64055``; names are not told by libvirt."""
    user, _, group = label.partition(":")
    try:
        return int(user), int(group)
    except ValueError:
        return None


def default_owner(capabilities: str, kind: str) -> tuple[int, int] | None:
    """Of a domain of this kind (``kvm``, ``qemu``) that is off."""
    for label in ElementTree.fromstring(capabilities).iterfind("host/secmodel/baselabel"):
        found = parse_owner(label.text or "") if label.get("type") == kind else None
        if found is not None:
            return found
    return None


def _attribute(element: ElementTree.Element, path: str, name: str) -> str:
    found = element.find(path)
    return found.get(name, "") if found is not None else ""
