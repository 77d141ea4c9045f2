"""Which disks a VM has, from one look at QEMU."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart import errors
from headstart.hypervisor import images, rawfile
from headstart.hypervisor.inventory import Disk, ImageFile, Inventory, LeftOut, Recorder
from headstart.hypervisor.overlays import Place
from headstart.hypervisor.qemu import graph as graphs
from headstart.hypervisor.qemu import layers, process
from headstart.hypervisor.qemu.graph import Device, Devices, Drive, Graph, Node
from headstart.hypervisor.qemu.layers import Found, Stack
from headstart.hypervisor.qemu.versions import Trait
from headstart.hypervisor.recording import NOTHING, Recording
from headstart.wire.qmp import Qmp

#: Firmware flash is no disk; a writable one holds the UEFI variables.
_FLASH = re.compile(r"/machine/.*flash\d*$|.*\bpflash\d+$")
IOTHREAD = (
    "its device is served by an iothread, and this QEMU aborts when an NBD client leaves such a disk;"
    " QEMU itself copies what is wanted of it into the scratch directory"
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A disk and where it hangs in QEMU: ``device`` takes another root by ``qom-set drive``."""

    disk: Disk
    device: str
    root: str
    tracked: str
    iothread: str
    #: The file or device that the guest's writes end up in.
    image: Path
    #: The overlays that record it; or, where none stands, where they could be.
    stack: Stack | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The VM at one moment."""

    graph: Graph
    attachments: tuple[Attachment, ...]
    left_out: tuple[LeftOut, ...]
    files: tuple[tuple[str, Path], ...]

    def attachment(self, disk: str) -> Attachment:
        for attachment in self.attachments:
            if attachment.disk.name == disk:
                return attachment
        raise errors.NotFound(f"The VM has no disk '{disk}' any longer: it was unplugged.", disk=disk)

    def traits(self) -> dict[str, set[Trait]]:
        """Of each disk, by name."""
        found: dict[str, set[Trait]] = {}
        for each in self.attachments:
            throttled = any(node.driver == "throttle" for node in self.graph.filters(each.root))
            has = {Trait.IOTHREAD: bool(each.iothread), Trait.THROTTLE: throttled}
            found[each.disk.name] = {trait for trait, it_has in has.items() if it_has}
        return found


def look(qmp: Qmp, devices: Devices, excluded: Container[str], recording: Recording = NOTHING) -> Look:
    graph = graphs.look(qmp)
    attachments: list[Attachment] = []
    left_out = [LeftOut(_name(drive), "no medium") for drive in graph.empty]
    files: list[tuple[str, Path]] = []
    names: set[str] = set()
    # One disk in an iothread makes the point in time of all another one, which knows nothing of overlays.
    iothread = next((found for drive in graph.drives if (found := devices.of(drive).iothread)), "")
    for drive in graph.drives:
        device = devices.of(drive)
        node = graph.nodes[graph.below_filters(drive.root)]
        name = _unique(_name(drive, node.name, device.serial), names)
        if is_flash(drive):
            if not node.read_only:
                file = graph.file_node(node.name) or node
                files.append(("uefi-variables", process.resolve(qmp.peer_pid, file.file)))
            continue
        reason = _reason_to_leave_out(name, drive, node, excluded)
        if reason:
            left_out.append(LeftOut(name, reason))
        else:
            attachments.append(_attachment(qmp, graph, drive, device, name, recording, iothread))
    return Look(graph, tuple(attachments), tuple(left_out), tuple(files))


def inventory(qmp: Qmp, seen: Look) -> Inventory:
    return Inventory(
        tuple(attachment.disk for attachment in seen.attachments),
        seen.left_out,
        process.command_line(qmp.peer_pid),
        seen.files,
    )


def names(qmp: Qmp, devices: Devices, drives: Sequence[Drive]) -> list[str]:
    """The names that ``look`` gives to all drives with a medium; QEMU is asked only where a drive has no id."""
    taken: set[str] = set()
    if all(_id(drive) for drive in drives):
        return [_unique(_name(drive), taken) for drive in drives]
    graph = graphs.look(qmp)
    found = []
    for drive in drives:
        node = graph.below_filters(drive.root) if drive.root in graph.nodes else ""
        found.append(_unique(_name(drive, node, devices.of(drive).serial), taken))
    return found


def is_flash(drive: Drive) -> bool:
    return bool(_FLASH.match(drive.qdev) or _FLASH.match(drive.device))


def _reason_to_leave_out(name: str, drive: Drive, node: Node, excluded: Container[str]) -> str:
    if name in excluded:
        return "excluded"
    if drive.removable:
        return "removable (CD-ROM or floppy)"
    if node.read_only:
        return "read-only"
    if not drive.qdev:
        return "no device of the guest uses it"
    if node.size == 0:
        return "empty"
    return ""


def _name(drive: Drive, node: str = "", serial: str = "") -> str:
    """The device's id, the drive's id, the node's name, or the serial: what the owner chose first.
    Generated node names (``#block123``) change from start to start and are no names."""
    given = "" if node.startswith("#") else node
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", _id(drive) or given or serial).strip("-.")
    return plain or "disk"


def _id(drive: Drive) -> str:
    """The device's or the drive's; empty if the owner gave none."""
    named = re.match(r"(?:/machine/peripheral/)?([^/]+)", drive.qdev)
    anonymous = drive.qdev.startswith("/machine/peripheral-anon") or drive.qdev.startswith("/machine/un")
    chosen = "" if anonymous or named is None else named.group(1)
    return chosen or drive.device


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    taken.add(candidate)
    return candidate


def _attachment(
    qmp: Qmp, graph: Graph, drive: Drive, device: Device, name: str, recording: Recording, iothread: str
) -> Attachment:
    tracked = graph.below_filters(drive.root)
    node = graph.nodes[tracked]
    found = layers.find(
        graph,
        tracked,
        recording=recording,
        pid=qmp.peer_pid,
        identified=bool(_id(drive)),
        iothread=iothread,
    )
    files = _layers(qmp, graph, tracked, found)
    data = node.info.get("format-specific", {}).get("data", {})
    disk = Disk(
        name=name,
        size=graph.nodes[drive.root].size,
        format=files[found.count].driver,
        interface=device.kind,
        serial=device.serial,
        wwn=device.wwn,
        pci=device.pci,
        layers=tuple(files),
        persistent=found.stack is not None or (node.driver == "qcow2" and data.get("compat") != "0.10"),
        recorder=Recorder.BITMAP if found.stack is None else Recorder.OVERLAY,
        overlays=found.count,
        unlayered=found.obstacle,
        overridden=_overridden(graph, tracked),
    )
    if device.iothread and not _is_raw_file(disk):
        disk = replace(disk, unreadable=IOTHREAD, glimpsed=True)
    file = graph.file_node(tracked) or node
    image = process.resolve(qmp.peer_pid, file.file)
    if found.stack is not None:
        image = found.stack.segments[-1].path
    return Attachment(disk, drive.qdev, drive.root, tracked, device.iothread, image, found.stack, found.place)


def _is_raw_file(disk: Disk) -> bool:
    """Its content can be read without QEMU."""
    if disk.overridden:
        return False
    with rawfile.raw_file(disk) as found:
        return found is not None


def _overridden(graph: Graph, top: str) -> str:
    """QEMU names a node by its file, unless there is more to it (``bdrv_refresh_filename``)."""
    if any(node.file.startswith("json:") for node in graph.chain(top)):
        return "QEMU was given more than its image file (an offset, another backing file, a key)"
    return ""


def _layers(qmp: Qmp, graph: Graph, top: str, found: Found) -> list[ImageFile]:
    """Of overlays of ours the topmost by the name that always leads to it; of the image below what stays as it is."""
    told = []
    for number, node in enumerate(graph.chain(top)):
        file = graph.file_node(node.name) or node
        path = process.resolve(qmp.peer_pid, file.file)
        if found.stack is not None and number < found.count:
            path = found.stack.segments[-1 - number].path if number else found.stack.place.head
        told.append(images.image_file(path, node.driver, active=number <= found.count))
    return told


def active_image(attachment: Attachment) -> Path:
    """The file or device that the guest's writes end up in."""
    return attachment.image
