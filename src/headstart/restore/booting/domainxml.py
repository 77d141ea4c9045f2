"""From a domain's XML to one that starts it from a backup, beside whatever else runs (libvirt's formatdomain).

As ``definition`` for plain QEMU: what cannot be had twice gets another place, mostly one that libvirt chooses, or is
left out, which ``notes`` tell; everything else stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from headstart import errors, plain, units
from headstart.repository.manifest import Disk
from headstart.restore.booting import trust
from headstart.restore.booting.definition import Place
from headstart.wire.nbd import Export

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
#: What QEMU is told past libvirt.
_QEMU_OPTIONS = ("commandline", "override")
_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "k": units.KIB,
    "KiB": units.KIB,
    "M": units.MIB,
    "MiB": units.MIB,
    "G": units.GIB,
    "GiB": units.GIB,
    "T": units.TIB,
    "TiB": units.TIB,
}
_LEFT_OUT = {
    "hostdev": "a device of the host",
    "filesystem": "a folder of the host",
    "lease": "the VM as it was has it",
    "pstore": "its content is in no backup",
    "shmem": "memory that is shared with others",
    "smartcard": "a device of the host",
    "tpm": "its state is in no backup; a guest that seals keys with it (BitLocker) asks for a recovery key",
}
#: Disks that are no files, and cannot be had twice.
_DISKS_LEFT_OUT = ("vhostuser", "vhostvdpa", "nvme", "dir")
#: Networks whose socket or device the definition names.
_NETWORKS_BY_PATH = ("vhostuser", "vdpa")
#: What an interface keeps that is connected to nothing.
_INTERFACE_KEEPS = ("mac", "model", "address", "alias", "boot", "rom", "mtu", "acpi")
#: What a disk's driver keeps.
_DRIVER_KEEPS = ("discard", "detect_zeroes", "queues", "queue_size", "iothread", "event_idx", "ioeventfd", "packed")
_DISK_LOSES = ("source", "backingStore", "mirror", "auth", "encryption", "readonly", "shareable", "transient")
_QUIET = ("pty", "null", "vc", "spicevmc", "spiceport", "qemu-vdagent", "dbus")


@dataclass(frozen=True, slots=True)
class Derived:
    """``memory`` in bytes; ``consoles`` are files that get what the guest writes on serial ports."""

    xml: str
    memory: int
    notes: tuple[str, ...]
    consoles: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """``below``: what the images stand on, by disk of the snapshot; none where they stand alone. ``uuid``: another one
    than it had; empty: the same. ``logged``: what the guest writes on serial ports goes into files as well."""

    place: Place
    below: Mapping[str, Export] = field(default_factory=dict)
    uuid: str = ""
    logged: bool = False


def derive(xml: str, disks: tuple[Disk, ...], around: Around) -> Derived:
    """Raises ``Unsupported`` for what cannot be adjusted, ``NotFound`` for a disk that the definition has not."""
    root = parse(xml)
    for tag in _QEMU_OPTIONS:
        if root.find(_QEMU + tag) is not None:
            raise errors.Unsupported(
                f"The VM's definition has options for QEMU itself (qemu:{tag}), of which it cannot be told what they"
                " share. Restore its disks with 'headstart restore'."
            )
    derivation = _Derivation(root, disks, around)
    derivation.adjust()
    return Derived(
        ElementTree.tostring(root, encoding="unicode"),
        memory_of(root),
        tuple(derivation.notes),
        tuple(derivation.consoles),
    )


def parse(xml: str) -> Element:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise errors.Unsupported(f"The definition in the snapshot is no XML: {error}.") from None
    if root.tag != "domain" or root.find("devices") is None:
        raise errors.Unsupported("The definition in the snapshot is no domain of libvirt's.")
    return root


def uuid_of(xml: str) -> str:
    return parse(xml).findtext("uuid", "").strip()


def ports(xml: str) -> tuple[str, ...]:
    """The names of virtio-serial ports."""
    found = (element.get("name", "") for element in parse(xml).iterfind("devices/channel/target"))
    return tuple(name for name in found if name)


def memory_of(root: Element) -> int:
    """Bytes. Raises ``Unsupported``."""
    element = root.find("memory")
    try:
        return int(element.text or "") * _UNITS[element.get("unit", "KiB")] if element is not None else 0
    except (KeyError, ValueError):
        raise errors.Unsupported("The VM's definition has a size of memory that is none.") from None


class _Derivation:
    def __init__(self, root: Element, disks: tuple[Disk, ...], around: Around) -> None:
        self._root = root
        self._place = around.place
        self._around = around
        self._disks = dict(self._matched(disks))
        self.notes: dict[str, None] = {}
        self.consoles: list[Path] = []

    def adjust(self) -> None:
        self._root.attrib.pop("id", None)
        _set(self._root, "name", self._place.name)
        if self._around.uuid:
            _set(self._root, "uuid", self._around.uuid)
            for entry in self._root.iterfind("sysinfo/system/entry[@name='uuid']"):
                entry.text = self._around.uuid  # libvirt starts no domain that tells its guest another one
        for tag in ("seclabel", "memoryBacking"):
            for element in self._root.findall(tag):
                self._root.remove(element)
                if tag == "memoryBacking":
                    self._note("the VM's memory is the host's ordinary memory")
        self._adjust_memory()
        self._adjust_firmware()
        devices = self._root.find("devices")
        assert devices is not None, "it was looked for"
        if not self._place.trusted:
            self._take_programs(devices)
        for element in list(devices):
            adjust = _ADJUSTED.get(element.tag)
            if element.tag in _LEFT_OUT:
                self._leave_out(devices, element, _LEFT_OUT[element.tag])
            elif adjust is not None:
                adjust(self, devices, element)

    def _take_programs(self, devices: Element) -> None:
        """Whoever may add to the repository names them. libvirt has an emulator for each machine by itself."""
        for element in devices.findall("emulator"):
            if not trust.is_installed((element.text or "").strip()):
                devices.remove(element)
                self._note(f"QEMU is libvirt's own choice, and not {plain.line(element.text or '')}")
        for parent in devices.findall("interface"):
            for child in parent.findall("script") + parent.findall("downscript"):
                parent.remove(child)
                self._note("the script of a network card is left out: a program of the host")
            for child in parent.findall("backend"):
                for name in [each for each in ("logFile", "tap", "vhost") if each in child.attrib]:
                    del child.attrib[name]
                    self._note(f"the {name} of a network card is left out: a file of the host")

    def _note(self, text: str) -> None:
        self.notes[text] = None

    def _leave_out(self, devices: Element, element: Element, why: str) -> None:
        devices.remove(element)
        self._note(f"{element.tag} is left out: {why}")

    def _adjust_memory(self) -> None:
        if self._place.memory is None:
            return
        if self._root.find("cpu/numa") is not None or self._root.find("maxMemory") is not None:
            raise errors.Usage("The VM's memory is described in pieces: it takes no --memory. Leave it out.")
        for tag in ("memory", "currentMemory"):
            element = _set(self._root, tag, str(-(-self._place.memory // units.KIB)))
            element.set("unit", "KiB")

    def _adjust_firmware(self) -> None:
        nvram, varstore = self._root.find("os/nvram"), self._root.find("os/varstore")
        self._adjust_loader(has_variables=nvram is not None)
        if nvram is None and varstore is None:
            return
        if self._place.variables is None:
            raise errors.NotFound(
                "The VM has UEFI variables, and the snapshot has not: its firmware would not know what to boot."
                " Restore the disks with 'headstart restore', and start the VM with variables of its own."
            )
        if varstore is not None:
            varstore.attrib = {"path": str(self._place.variables)}
        if nvram is not None:
            for child in list(nvram):
                nvram.remove(child)
            nvram.attrib.pop("type", None)
            nvram.text = str(self._place.variables)

    def _adjust_loader(self, *, has_variables: bool) -> None:
        """It is the file of the VM as it was, too, and of others."""
        loader = self._root.find("os/loader")
        if loader is None or loader.get("type") != "pflash" or not (loader.text or "").strip():
            return
        if loader.get("readonly") == "no" and not has_variables:
            raise errors.Unsupported(
                "The VM has firmware and UEFI variables in one flash, which is in no backup. Restore the disks with"
                " 'headstart restore', and start the VM with a flash of its own."
            )
        loader.set("readonly", "yes")

    # -- disks

    def _matched(self, disks: tuple[Disk, ...]) -> Iterator[tuple[str, Disk]]:
        """Names of targets, and the disks of the snapshot that they are."""
        elements = [
            each for each in self._root.iterfind("devices/disk") if each.get("device", "disk") in ("disk", "lun")
        ]
        for disk in disks:
            same = [_target(each) for each in elements if _target(each) == disk.name]
            same = same or [
                _target(each) for each in elements if disk.serial and each.findtext("serial") == disk.serial
            ]
            if len(same) != 1:
                raise errors.NotFound(
                    f"Disk {plain.line(disk.name)} of the snapshot is not in the VM's definition, which has:"
                    f" {', '.join(map(plain.line, map(_target, elements))) or 'none'}.",
                    disk=disk.name,
                )
            yield same[0], disk

    def _adjust_disk(self, devices: Element, element: Element) -> None:
        name = _target(element)
        if name in self._disks:
            self._replace(element, self._disks[name])
        elif element.get("device") in ("cdrom", "floppy"):
            self._adjust_medium(element)
        elif element.find("readonly") is None or element.get("type") in _DISKS_LEFT_OUT or not self._is_there(element):
            devices.remove(element)
            self._note(f"disk {plain.line(name)} is left out: it is not in the snapshot")

    def _replace(self, element: Element, disk: Disk) -> None:
        element.attrib = {"type": "file", "device": "disk"}
        for tag in _DISK_LOSES:
            for child in element.findall(tag):
                element.remove(child)
        old = element.find("driver")
        kept = {} if old is None else {key: value for key, value in old.attrib.items() if key in _DRIVER_KEEPS}
        if old is not None:
            element.remove(old)
        policies = {"error_policy": "stop", "rerror_policy": "stop"}
        ElementTree.SubElement(element, "driver", {"name": "qemu", "type": "qcow2", **kept, **policies})
        ElementTree.SubElement(element, "source", file=str(self._place.images[disk.name]))
        if disk.name in self._around.below:
            element.append(_below(self._around.below[disk.name]))

    def _is_there(self, element: Element) -> bool:
        """What it stands on. A snapshot chooses no other hosts, nor what stands below a file, which the file tells."""
        file = _file(element)
        if self._place.trusted:
            return not file or self._place.there(file)
        if element.get("type", "file") not in ("file", "block") or not file or not self._place.there(file):
            return False
        for tag in ("backingStore", "mirror"):
            for child in element.findall(tag):
                element.remove(child)
        for source in element.findall("source"):
            for child in list(source):
                source.remove(child)
        return True

    def _adjust_medium(self, element: Element) -> None:
        source = element.find("source")
        may_stay = element.get("device") == "cdrom" and self._place.media
        if source is None or (may_stay and self._is_there(element)):
            return
        self._note(f"drive {plain.line(_target(element))} is empty: its medium is not in a backup")
        element.set("type", "file")
        for child in (source, element.find("backingStore")):
            if child is not None:
                element.remove(child)

    # -- everything else

    def _adjust_interface(self, devices: Element, element: Element) -> None:
        if element.get("type") == "hostdev":
            self._leave_out(devices, element, "a device of the host")
            return
        by_path = element.get("type") in _NETWORKS_BY_PATH and not self._place.trusted
        if self._place.network and not by_path:
            return
        if self._place.network:
            self._note("a network card is connected to nothing: its definition names a file of the host")
        for child in list(element):
            if child.tag not in _INTERFACE_KEEPS:
                element.remove(child)
        element.attrib = {"type": "user"}
        ElementTree.SubElement(element, "link", state="down")

    def _adjust_character(self, devices: Element, element: Element) -> None:
        """Sockets get a path of libvirt's choice; what is not of this VM alone becomes a terminal."""
        kind = element.get("type", "pty")
        source = element.find("source")
        listens = kind == "unix" and (source is None or source.get("mode", "bind") == "bind")
        for tag in ("source", "protocol", "log"):
            for child in element.findall(tag):
                element.remove(child)
        if listens and element.tag == "channel":
            return
        if kind not in _QUIET or listens:
            element.set("type", "null" if kind == "unix" and not listens else "pty")
        element.attrib.pop("tty", None)
        if element.tag == "serial" and self._around.logged:
            path = self._place.folder / f"serial{len(self.consoles)}.log"
            ElementTree.SubElement(element, "log", file=str(path), append="off")
            self.consoles.append(path)

    def _adjust_graphics(self, devices: Element, element: Element) -> None:
        if element.get("type") in ("sdl", "desktop", "rdp"):
            self._leave_out(devices, element, "the host's screen")
            return
        if element.get("type") in ("vnc", "spice"):
            for name in ("port", "tlsPort", "websocket", "listen", "socket"):
                element.attrib.pop(name, None)
            for child in element.findall("listen"):
                element.remove(child)
            element.set("autoport", "yes")

    def _adjust_vsock(self, devices: Element, element: Element) -> None:
        for child in element.findall("cid"):
            element.remove(child)
        ElementTree.SubElement(element, "cid", auto="yes")

    def _adjust_redirdev(self, devices: Element, element: Element) -> None:
        if element.get("type") != "spicevmc":
            self._leave_out(devices, element, "a program of the host serves it")

    def _adjust_rng(self, devices: Element, element: Element) -> None:
        backend = element.find("backend")
        if backend is not None and backend.get("model") == "egd":
            self._leave_out(devices, element, "a program of the host serves it")

    def _adjust_audio(self, devices: Element, element: Element) -> None:
        if element.get("type") not in ("none", "spice"):
            element.attrib = {"id": element.get("id", "1"), "type": "none"}
            for child in list(element):
                element.remove(child)

    def _adjust_input(self, devices: Element, element: Element) -> None:
        if element.get("type") in ("evdev", "passthrough"):
            self._leave_out(devices, element, "a device of the host")

    def _adjust_memory_device(self, devices: Element, element: Element) -> None:
        """Two guests upon one file would have one file system mounted."""
        if element.find("source/path") is not None:
            self._leave_out(devices, element, "it is a file, whose content is in no backup")


#: By devices, what adjusts them.
_ADJUSTED: Mapping[str, Callable[[_Derivation, Element, Element], None]] = {
    "audio": _Derivation._adjust_audio,
    "channel": _Derivation._adjust_character,
    "console": _Derivation._adjust_character,
    "disk": _Derivation._adjust_disk,
    "graphics": _Derivation._adjust_graphics,
    "input": _Derivation._adjust_input,
    "interface": _Derivation._adjust_interface,
    "memory": _Derivation._adjust_memory_device,
    "parallel": _Derivation._adjust_character,
    "redirdev": _Derivation._adjust_redirdev,
    "rng": _Derivation._adjust_rng,
    "serial": _Derivation._adjust_character,
    "vsock": _Derivation._adjust_vsock,
}


def _set(root: Element, tag: str, text: str) -> Element:
    element = root.find(tag)
    if element is None:
        element = ElementTree.SubElement(root, tag)
    element.text = text
    return element


def _target(element: Element) -> str:
    target = element.find("target")
    return target.get("dev", "") if target is not None else ""


def _file(element: Element) -> str:
    source = element.find("source")
    return "" if source is None else source.get("file", source.get("dev", ""))


def _below(export: Export) -> Element:
    backing = Element("backingStore", type="network")
    ElementTree.SubElement(backing, "format", type="raw")
    source = ElementTree.SubElement(backing, "source", protocol="nbd", name=export.name)
    ElementTree.SubElement(source, "host", transport="unix", socket=str(export.socket))
    ElementTree.SubElement(backing, "backingStore")
    return backing
