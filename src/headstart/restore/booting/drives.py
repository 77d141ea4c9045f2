"""Which drives a QEMU command line makes, and what ``hypervisor.qemu.inventory`` calls them.

::

    -device virtio-blk-pci,drive=D,id=I     its name: the device's id, else -drive's, else the node's, else the serial
    -drive id=D,file=…                                                  one option
    -blockdev node-name=D,file=F  -blockdev node-name=F,filename=…      a chain of nodes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from headstart import errors, plain
from headstart.hypervisor.qemu.graph import FILTERS
from headstart.restore.booting import commandline
from headstart.restore.booting.commandline import CommandLine, Option

#: Options that stand for a ``-drive``.
SHORT = {
    "": {"index": "0", "media": "disk"},
    "hda": {"index": "0", "media": "disk"},
    "hdb": {"index": "1", "media": "disk"},
    "hdc": {"index": "2", "media": "disk"},
    "hdd": {"index": "3", "media": "disk"},
    "cdrom": {"index": "2", "media": "cdrom"},
    "fda": {"if": "floppy", "index": "0"},
    "fdb": {"if": "floppy", "index": "1"},
    "pflash": {"if": "pflash"},
    "mtdblock": {"if": "mtd"},
    "sd": {"if": "sd"},
}
#: Drives on one bus (``if_max_devs`` in QEMU's blockdev.c).
_DEVICES = {"ide": 2, "scsi": 7}
#: Devices whose medium can be taken out.
_REMOVABLE = re.compile(r"(ide|scsi)-cd$|floppy$|isa-fdc$")


class Kind(Enum):
    DISK = "disk"
    REMOVABLE = "removable"
    FLASH = "flash"


@dataclass(frozen=True, slots=True)
class Drive:
    """``options``: numbers of those that make its content (one ``-drive``, or ``-blockdev``, the top one first);
    ``device``: number of the ``-device``, if it has one. ``file``: what it stands on; empty: no medium."""

    name: str
    kind: Kind
    options: tuple[int, ...]
    device: int | None
    file: str
    read_only: bool
    serial: str = ""


@dataclass(slots=True)
class _Places:
    """Which drives of an interface are taken, to number those without an id as QEMU does."""

    limits: Mapping[str, int]
    taken: set[tuple[str, int, int]] = field(default_factory=set)

    def take(self, interface: str, values: Mapping[str, Any]) -> tuple[int, int]:
        limit = self.limits.get(interface, 0)
        bus, unit = int(values.get("bus", 0)), int(values.get("unit", -1))
        if "index" in values:
            index = int(values["index"])
            bus, unit = divmod(index, limit) if limit else (0, index)
        elif unit < 0:
            unit = 0
            while (interface, bus, unit) in self.taken:
                unit += 1
                if limit and unit >= limit:
                    bus, unit = bus + 1, 0
        self.taken.add((interface, bus, unit))
        return bus, unit


def normal(line: CommandLine) -> CommandLine:
    """With a ``-drive`` in place of each option that stands for one."""
    options = tuple(
        commandline.option("drive", **SHORT[each.name], file=each.text)
        if each.name in SHORT and each.text is not None
        else each
        for each in line.options
    )
    return CommandLine(line.program, options)


def find(line: CommandLine) -> tuple[Drive, ...]:
    """Of a ``normal`` command line, in its order. Raises ``Unsupported`` for what cannot be told."""
    try:
        return tuple(_Finder(line).all())
    except ValueError as error:
        raise errors.Unsupported(f"The VM's definition has a drive that makes no sense: {error}.") from error


class _Finder:
    def __init__(self, line: CommandLine) -> None:
        self._options = line.options
        self._nodes = {
            str(values.get("node-name", "")): (number, values)
            for number, values in self._nested("blockdev")
            if values.get("node-name")
        }
        machine = line.first("machine")
        self._machine = (machine.values if machine else {}) | {"": ""}
        type_ = str(self._machine.get("type", ""))
        self._interface = "virtio" if "virt" in type_ or "s390" in line.program else "ide"
        self._places = _Places(_DEVICES | ({"ide": 1} if "q35" in type_ else {}))

    def _nested(self, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, option in enumerate(self._options):
            if option.name == name:
                yield number, commandline.nested(option)

    def all(self) -> Iterator[Drive]:
        drives = {self._id_of(number): number for number, _ in self._nested("drive")}
        seated: set[str] = set()
        for number, values in enumerate(option.values if option.name == "device" else {} for option in self._options):
            source = str(values.get("drive", ""))
            if not source:
                continue
            seated.add(source)
            if source in drives:
                yield self._of_drive(source, drives[source], number)
            elif source in self._nodes:
                yield self._of_node(source, number)
            else:
                raise errors.Unsupported(
                    f"The VM's definition has a device for a drive {plain.line(source)!r} that it does not define."
                )
        for source, number in drives.items():
            if source not in seated:
                yield self._of_drive(source, number, None)
        for flash in ("pflash0", "pflash1"):
            if flash in self._machine:
                yield self._of_node(str(self._machine[flash]), None)

    def _id_of(self, number: int) -> str:
        """As QEMU makes one where none is given (``drive_new``)."""
        values = self._options[number].values
        interface = str(values.get("if", self._interface))
        bus, unit = self._places.take(interface, values)
        if values.get("id"):
            return str(values["id"])
        medium = ("-cd" if values.get("media") == "cdrom" else "-hd") if interface in ("ide", "scsi") else ""
        return f"{interface}{bus if interface in _DEVICES else ''}{medium}{unit}"

    def _of_drive(self, source: str, number: int, device: int | None) -> Drive:
        option = self._options[number]
        values = commandline.nested(option)
        file = values.get("file", "")
        name = file.get("filename", "") if isinstance(file, dict) else str(file)
        kind = Kind.DISK
        if values.get("if") == "pflash":
            kind = Kind.FLASH
        elif values.get("if") == "floppy" or values.get("media") == "cdrom" or self._is_removable(device):
            kind = Kind.REMOVABLE
        read_only = commandline.as_text(values.get("readonly", values.get("read-only", "off"))) == "on"
        serial = self._options[device].word("serial") if device is not None else ""
        return Drive(self._name(device, source, ""), kind, (number,), device, str(name), read_only, serial)

    def _of_node(self, source: str, device: int | None) -> Drive:
        if source not in self._nodes:
            raise errors.Unsupported(f"The VM's definition uses a block node {plain.line(source)!r} that it has not.")
        chain = self._chain(source)
        top = self._nodes[source][1]
        read_only = commandline.as_text(top.get("read-only", "off")) == "on"
        if device is None:
            return Drive(source, Kind.FLASH, chain, None, self._file(source), read_only)
        kind = Kind.REMOVABLE if self._is_removable(device) else Kind.DISK
        serial = self._options[device].word("serial")
        return Drive(self._name(device, "", source), kind, chain, device, self._file(source), read_only, serial)

    def _is_removable(self, device: int | None) -> bool:
        return device is not None and bool(_REMOVABLE.match(self._options[device].word("driver")))

    def _name(self, device: int | None, drive: str, node: str) -> str:
        """As ``hypervisor.qemu.inventory`` does."""
        own = self._options[device].word("id") if device is not None else ""
        serial = self._options[device].word("serial") if device is not None else ""
        plain_name = re.sub(r"[^A-Za-z0-9._-]+", "-", own or drive or node or serial).strip("-.")
        return plain_name or "disk"

    def _chain(self, source: str) -> tuple[int, ...]:
        """The node that the guest's device has, and all that only it stands on."""
        found: list[int] = []
        waiting = [source]
        while waiting:
            name = waiting.pop(0)
            if name in self._nodes and self._nodes[name][0] not in found:
                number, values = self._nodes[name]
                found.append(number)
                waiting += [
                    str(each) for key, each in values.items() if key != "node-name" and str(each) in self._nodes
                ]
        return tuple(found)

    def _file(self, source: str) -> str:
        values: Mapping[str, Any] = self._nodes[source][1]
        for _ in self._nodes:
            below = values.get("file")
            if isinstance(below, dict):
                values = below
            elif isinstance(below, str) and below in self._nodes:
                values = self._nodes[below][1]
            else:
                break
        return str(values.get("filename", ""))


def below_filters(options: Sequence[Option], drive: Drive) -> int:
    """The option of the node that an image takes the place of. Raises ``Unsupported`` where that is inside of another
    node's."""
    numbers = {str(options[number].values.get("node-name")): number for number in drive.options}
    number = drive.options[0]
    while True:
        values = commandline.nested(options[number])
        if values.get("driver") not in FILTERS:
            return number
        below = values.get("file", "")
        if not isinstance(below, str) or below not in numbers:
            raise errors.Unsupported(
                f"Disk {plain.line(drive.name)} has its image inside of a filter node: the VM's definition cannot be"
                " adjusted. Name another one with --definition."
            )
        number = numbers[below]
