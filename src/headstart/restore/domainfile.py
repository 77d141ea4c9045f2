"""A definition by which libvirt starts a restored VM (formatdomain): that of the VM, with the disks where they are now.

A domain of libvirt's stays what it was, down to UUID and MAC addresses. Of a VM of plain QEMU the parts are carried
over that a guest notices: firmware, machine, processors, memory, disks, network cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from headstart import errors, plain
from headstart.repository.manifest import Disk
from headstart.restore.booting import commandline, drives
from headstart.restore.booting.commandline import CommandLine
from headstart.restore.booting.definition import memory_of
from headstart.restore.booting.drives import Kind

#: Image formats that libvirt can give to QEMU.
FORMATS = ("raw", "qcow2", "vmdk")
_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
#: Ports of QEMU's guest agent and of ours.
_PORTS = ("org.qemu.guest_agent.0", "org.headstart.agent.0")
#: What the owner has to see to.
_DERIVED = (
    " Derived from QEMU's command line (definition.txt). Devices other than disks and network cards are not in it, and"
    " the cards are connected to QEMU's user network: see whether that is what you want. "
)
_CARD = re.compile(r"(virtio-net|e1000|rtl8139|vmxnet3|ne2k|pcnet|i82)")


@dataclass(frozen=True, slots=True)
class Restored:
    """A disk of the snapshot and where it is now; ``format`` of the file, or None: a block device."""

    disk: Disk
    path: Path
    format: str | None


@dataclass(frozen=True, slots=True)
class Made:
    """``notes``: what is not as it was, and what the user has to see to."""

    text: str
    notes: tuple[str, ...]


def derive(vm: str, definition: str, disks: Sequence[Restored], variables: Path | None) -> Made | None:
    """``definition`` as a backup has it; ``variables``: where the UEFI variables are now. None if it makes no sense."""
    try:
        if definition.lstrip().startswith("<"):
            root, notes = _of_domain(definition, disks, variables)
        else:
            root, notes = _of_command_line(vm, definition, disks, variables), []
    except (ElementTree.ParseError, ValueError, errors.Unsupported):
        return None
    ElementTree.indent(root)
    return Made(ElementTree.tostring(root, encoding="unicode") + "\n", tuple(notes))


# -- of a domain


def _of_domain(text: str, disks: Sequence[Restored], variables: Path | None) -> tuple[Element, list[str]]:
    ElementTree.register_namespace("qemu", _QEMU_NAMESPACE)
    root = ElementTree.fromstring(text)
    devices = root.find("devices")
    if root.tag != "domain" or devices is None:
        raise ValueError("no domain")
    restored = {each.disk.name: each for each in disks}
    notes = []
    for element in devices.findall("disk"):
        target = element.find("target")
        name = target.get("dev", "") if target is not None else ""
        if name in restored:
            _place(element, restored.pop(name))
        elif element.get("device") in ("cdrom", "floppy"):
            if (source := element.find("source")) is not None:
                element.remove(source)
                notes.append(f"the drive {plain.line(name)} is empty")
        elif element.find("source") is not None:
            devices.remove(element)  # it would be the disk of the VM as it was
            notes.append(f"the disk {plain.line(name)} is left out: it was not in the backup")
    if restored:
        raise ValueError("disks that the domain has not")
    nvram = root.find("os/nvram")
    if nvram is not None and variables is not None:
        for child in list(nvram):
            nvram.remove(child)
        for key in ("type", "format"):
            nvram.attrib.pop(key, None)
        nvram.text = str(variables)
    root.attrib.pop("id", None)
    return root, notes


def _place(element: Element, restored: Restored) -> None:
    for tag in ("source", "backingStore", "mirror", "auth", "encryption"):
        for child in element.findall(tag):
            element.remove(child)
    for child in list(element):
        if child.tag == "driver":
            child.set("type", restored.format or "raw")
            break
    else:
        element.insert(0, Element("driver", name="qemu", type=restored.format or "raw"))
    kind, key = ("file", "file") if restored.format else ("block", "dev")
    element.set("type", kind)
    element.attrib.pop("snapshot", None)
    element.insert(1, Element("source", {key: str(restored.path)}))


# -- of a command line


def _of_command_line(vm: str, text: str, disks: Sequence[Restored], variables: Path | None) -> Element:
    line = commandline.read(text)
    accelerator = _value(line, "machine", "accel") + _value(line, "accel", "accel")
    accelerated = "kvm" in accelerator or line.first("enable-kvm") is not None
    root = Element("domain", type="kvm" if accelerated else "qemu")
    root.append(ElementTree.Comment(_DERIVED))
    _text(root, "name", vm)
    _text(root, "memory", str(_memory(line)), unit="b")
    _text(root, "vcpu", _value(line, "smp", "cpus") or "1")
    arch = re.sub(r".*qemu-system-", "", line.program) if "qemu-system-" in line.program else "x86_64"
    machine = _value(line, "machine", "type") or "pc"
    _boot(root, line, arch, machine, variables)
    features = SubElement(root, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    SubElement(root, "cpu", mode="host-passthrough" if accelerated else "maximum")
    SubElement(root, "clock", offset="localtime" if _value(line, "rtc", "base") == "localtime" else "utc")
    devices = SubElement(root, "devices")
    for each, target in zip(disks, _targets(disks, machine), strict=True):
        _disk(devices, each, *target)
    if any(bus == "scsi" for _, bus in _targets(disks, machine)):
        SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    for mac, model in _cards(line):
        card = SubElement(devices, "interface", type="user")
        if mac:
            SubElement(card, "mac", address=mac)
        SubElement(card, "model", type=model)
    for port in _PORTS:
        SubElement(SubElement(devices, "channel", type="unix"), "target", type="virtio", name=port)
    SubElement(SubElement(devices, "serial", type="pty"), "target", port="0")
    SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    SubElement(SubElement(devices, "video"), "model", type="vga")
    return root


def _value(line: CommandLine, name: str, key: str) -> str:
    """Of the first option of this name that has it; empty if none has."""
    return next((option.word(key) for option in line.options if option.name == name and key in option.values), "")


def _memory(line: CommandLine) -> int:
    return memory_of(_value(line, "m", "size") or "128")


def _boot(root: Element, line: CommandLine, arch: str, machine: str, variables: Path | None) -> None:
    os = SubElement(root, "os")
    _text(os, "type", "hvm", arch=arch, machine=machine)
    loader = _firmware(line)
    if loader:
        _text(os, "loader", loader, readonly="yes", type="pflash")
    elif variables is not None:
        os.set("firmware", "efi")
    if variables is not None:
        _text(os, "nvram", str(variables))
    for option, tag in (("kernel", "kernel"), ("initrd", "initrd"), ("append", "cmdline")):
        given = line.first(option)
        if given is not None and given.text:
            _text(os, tag, given.text)


def _firmware(line: CommandLine) -> str:
    """The flash that is only read."""
    flashes = (drive for drive in drives.find(drives.normal(line)) if drive.kind is Kind.FLASH and drive.read_only)
    return next((drive.file for drive in flashes), "")


def _targets(disks: Iterable[Restored], machine: str) -> list[tuple[str, str]]:
    """The name and the bus of each disk."""
    numbers: dict[str, int] = {}
    found = []
    for each in disks:
        bus = _bus(each.disk.interface or "", machine)
        prefix = {"virtio": "vd", "ide": "hd"}.get(bus, "sd")
        number = numbers[prefix] = numbers.get(prefix, -1) + 1
        found.append((f"{prefix}{_letters(number)}", bus))
    return found


def _bus(interface: str, machine: str) -> str:
    for word, bus in (("virtio", "virtio"), ("scsi", "scsi"), ("ide", "sata" if "q35" in machine else "ide")):
        if word in interface:
            return bus
    return "sata" if interface else "virtio"


def _letters(number: int) -> str:
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _disk(devices: Element, restored: Restored, target: str, bus: str) -> None:
    element = SubElement(devices, "disk", device="disk")
    SubElement(element, "target", dev=target, bus=bus)
    if restored.disk.serial:
        _text(element, "serial", restored.disk.serial)
    _place(element, restored)


def _cards(line: CommandLine) -> Iterator[tuple[str, str]]:
    """MAC address and model."""
    for option in line.options:
        model = option.word("model") or "e1000"
        if option.name == "device" and _CARD.match(option.word("driver")):
            model = option.word("driver")
        elif not (option.name == "nic" and option.word("type") != "none") and not (
            option.name == "net" and option.word("type") == "nic"
        ):
            continue
        yield option.word("mac") or option.word("macaddr"), "virtio" if "virtio" in model else model


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def unknown_formats(disks: Mapping[str, str]) -> list[str]:
    """Disks by the format that they are restored in, of which libvirt cannot start a VM."""
    return [name for name, form in disks.items() if form not in (*FORMATS, "device")]
