"""From the command line that a VM of plain QEMU had to one that starts it from a backup, beside whatever else runs.

Nothing of the VM as it was may be touched: its images, sockets, files, ports and network. What cannot be had twice is
given another place (in ``Place.folder``), or left out, which ``notes`` tell; every other word stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart import errors, plain, units
from headstart.hypervisor.qemu.graph import FILTERS
from headstart.repository.manifest import Disk
from headstart.restore.booting import characters, commandline, drives, trust
from headstart.restore.booting.characters import Characters
from headstart.restore.booting.commandline import CommandLine, Option, option
from headstart.restore.booting.drives import Drive, Kind

AGENT_PORT = "org.headstart.agent.0"
QGA_PORT = "org.qemu.guest_agent.0"

#: Ours to say, or of another start than this one.
_OURS = frozenset(
    {
        *("S", "daemonize", "pidfile", "name", "incoming", "loadvm", "snapshot", "no-shutdown", "preconfig"),
        *("monitor", "qmp", "qmp-pretty", "mon", "gdb", "s", "D", "writeconfig", "chroot", "runas"),
        *("display", "vnc", "nographic", "sdl", "curses", "full-screen", "alt-grab", "ctrl-grab", "no-quit"),
        *("mem-path", "mem-prealloc"),
    }
)
_REFUSED = {
    "readconfig": "a part of the VM is described in another file (-readconfig)",
    "add-fd": "whoever started QEMU handed it open files (-add-fd)",
    "set": "a part of the VM is described apart (-set)",
}
#: Options, devices and objects that share something of the host with the guest.
_SHARED = {"virtfs": "a folder of the host", "fsdev": "a folder of the host", "tpmdev": ""}
_DEVICES_LEFT_OUT = (
    (r"vfio-|usb-host$|pci-assign", "a device of the host"),
    (r"virtio-9p|vhost-user-fs|usb-mtp$", "a folder of the host"),
    (r"virtio-input-host|u2f-|ccid-card-|vhost-vdpa", "a device of the host"),
    (r"vhost-user-", "a program of the host serves it"),
    (r"vhost-vsock|vhost-scsi", "the host's kernel serves it"),
    (r"ivshmem", "memory that is shared with others"),
    (r"tpm-", "its state is in no backup; a guest that seals keys with it (BitLocker) asks for a recovery key"),
)
_OBJECTS_LEFT_OUT = re.compile(r"filter-|input-linux|cryptodev-vhost-user|colo-compare|tls-cipher")
#: What a ``-drive`` keeps beside its image.
_DRIVE_KEEPS = re.compile(r"(id|if|index|bus|unit|media|discard|detect-zeroes|group|(throttling|bps|iops).*)$")
_NODE_KEEPS = ("discard", "detect-zeroes")
#: Devices that can hold the VM when a request fails.
_HALTING = re.compile(r"(virtio-blk|scsi-hd$|scsi-disk$|ide-hd$)")
_MEMORY_SUFFIX = {"": units.MIB, "B": 1, "K": units.KIB, "M": units.MIB, "G": units.GIB, "T": units.TIB}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a VM is to be started. ``images``: by disk of the snapshot, the qcow2 file that is its content.

    ``variables``: a copy of its UEFI variables of its own. ``network``: its cards are connected as they were; else to
    nothing. ``memory`` in bytes, in place of what it had. ``trusted``: the definition is the user's own, see ``trust``.
    ``there``: whether a file of the host exists. ``media``: CDs that are there stay in their drives."""

    name: str
    folder: Path
    images: Mapping[str, Path]
    variables: Path | None = None
    network: bool = False
    memory: int | None = None
    trusted: bool = False
    there: Callable[[str], bool] = field(default=lambda path: Path(path).exists())
    media: bool = True


@dataclass(frozen=True, slots=True)
class Derived:
    """``words`` start QEMU; it listens on ``monitor`` (for others) and ``control`` (for who starts it).

    ``consoles`` are files that get what the guest writes on serial ports; ``sockets`` are its character devices by
    their ids. ``memory`` in bytes."""

    words: tuple[str, ...]
    monitor: Path
    control: Path
    pid_file: Path
    memory: int
    agent: Path | None = None
    qga: Path | None = None
    screen: Path | None = None
    consoles: tuple[Path, ...] = ()
    sockets: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def derive(definition: str, disks: Iterable[Disk], place: Place) -> Derived:
    """``definition`` as a backup of plain QEMU has it. Raises ``Unsupported`` for what cannot be adjusted, ``NotFound``
    for a disk or a file that is missing."""
    notes: dict[str, None] = {}
    line = commandline.read(definition)
    if not place.trusted:
        line = trust.tamed(line, lambda text: notes.update({text: None}), _HANDLED)
    line = drives.normal(line)
    for each in line.options:
        if each.name in _REFUSED:
            raise errors.Unsupported(
                f"The VM cannot be started from its definition: {_REFUSED[each.name]}. Name a whole command line with"
                " --definition, or restore the disks with 'headstart restore'."
            )
    return _Derivation(line, tuple(disks), place, notes).derived()


def memory_of(text: str) -> int:
    """Bytes of ``-m``'s size. Raises ``Unsupported``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([BKMGT]?)(?:iB)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise errors.Unsupported(f"The VM's definition has a size of memory that is none: {plain.line(text)}.")
    return int(float(found[1]) * _MEMORY_SUFFIX[found[2].upper()])


class _Derivation:
    def __init__(self, line: CommandLine, disks: tuple[Disk, ...], place: Place, notes: dict[str, None]) -> None:
        self._line = line
        self._place = place
        self._disks = disks
        self._notes = notes
        self._changed: dict[int, Option | None] = {}
        self._kept_nodes: set[int] = set()
        self._hubs = 0
        self._characters = Characters(line.options, place.folder, self._note, self._leads_on)

    def derived(self) -> Derived:
        self._adjust_drives()
        monitor, control = self._socket("qmp"), self._socket("control")
        ports, sockets = characters.ports(self._line.options), self._characters.sockets
        words = [self._line.program, "-name", f"guest={self._place.name.replace(',', ',,')}"]
        options = [each for number in range(len(self._line.options)) for each in self._adjusted(number)]
        options += self._added()
        words += CommandLine("", tuple(options)).words[1:]
        for path in (monitor, control):
            words += ["-qmp", f"unix:{_doubled(path)},server=on,wait=off"]
        screen = self._screen()
        words += ["-display", "none"] if screen is None else ["-display", f"vnc=unix:{_doubled(screen)}"]
        pid_file = self._place.folder / "pid"
        words += ["-pidfile", str(pid_file)]
        return Derived(
            tuple(words),
            monitor,
            control,
            pid_file,
            self._memory(),
            sockets.get(ports.get(AGENT_PORT, "")),
            sockets.get(ports.get(QGA_PORT, "")),
            screen,
            tuple(self._characters.consoles),
            sockets,
            tuple(self._notes),
        )

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _socket(self, name: str) -> Path:
        return characters.socket_path(self._place.folder, name)

    def _leads_on(self, user: Option) -> bool | None:
        """Whether a character device of this option's is one of the VM's: None if it leads where its network does."""
        if user.name == "netdev":
            return None if self._place.network else False
        left_out = user.name == "device" and any(re.match(each, user.word("driver")) for each, _ in _DEVICES_LEFT_OUT)
        return not left_out and user.name not in ("mon", "tpmdev", "monitor", "qmp", "qmp-pretty")

    # -- drives

    def _adjust_drives(self) -> None:
        found = drives.find(self._line)
        chosen = dict(self._matched(found))
        for drive in found:
            if drive.kind is Kind.FLASH:
                self._adjust_flash(drive)
            elif drive.name in chosen:
                self._replace_disk(drive, chosen[drive.name])
            elif drive.kind is Kind.REMOVABLE:
                self._adjust_medium(drive)
            elif drive.read_only and (drive.file or self._place.trusted) and self._place.there(drive.file):
                self._keep(drive)
            else:
                self._leave_out(drive)
        if sum(drive.kind is Kind.FLASH and not drive.read_only for drive in found) > 1:
            raise errors.Unsupported("The VM has two writable firmware flashes: its backup has the content of one.")

    def _matched(self, found: Iterable[Drive]) -> Iterator[tuple[str, Disk]]:
        """Names of drives, and the disks of the snapshot that they are."""
        candidates = [drive for drive in found if drive.kind is Kind.DISK]
        for disk in self._disks:
            same = [drive for drive in candidates if drive.name == disk.name]
            same = same or [drive for drive in candidates if disk.serial and drive.serial == disk.serial]
            if len(same) != 1:
                names = ", ".join(plain.line(drive.name) for drive in candidates)
                raise errors.NotFound(
                    f"Disk {plain.line(disk.name)} of the snapshot is not in the VM's definition, which has:"
                    f" {names or 'none'}. Name another definition with --definition.",
                    disk=disk.name,
                )
            yield same[0].name, disk

    def _replace_disk(self, drive: Drive, disk: Disk) -> None:
        image = str(self._place.images[disk.name])
        number = drives.below_filters(self._line.options, drive)
        old = self._line.options[number]
        if old.name == "drive":
            kept = {key: value for key, value in old.values.items() if _DRIVE_KEEPS.match(key)}
            new = kept | {"file": image, "format": "qcow2", "werror": "stop", "rerror": "stop"}
            self._changed[number] = Option("drive", commandline.compose(new))
        else:
            above = drive.options[: drive.options.index(number)]
            self._kept_nodes.update(each for each in above if self._line.options[each].values.get("driver") in FILTERS)
            self._kept_nodes.add(number)
            node = {"driver": "qcow2", "node-name": old.word("node-name")}
            node |= {key: old.word(key) for key in _NODE_KEEPS if old.word(key)}
            self._changed[number] = _node(node, image)
        if drive.device is not None:
            self._changed[drive.device] = self._device_of(drive, disk, halting=old.name != "drive")

    def _device_of(self, drive: Drive, disk: Disk, *, halting: bool) -> Option:
        """With an id, so that the disk keeps its name whatever node it gets later."""
        assert drive.device is not None, "only called with one"
        device = self._line.options[drive.device]
        kind = device.word("driver")
        if kind in ("scsi-block", "scsi-generic"):
            self._note(f"disk {plain.line(disk.name)} was a SCSI device of the host, and is an ordinary one now")
            device = device.having(driver="scsi-hd")
        if not device.word("id") and re.match(r"[A-Za-z][A-Za-z0-9._-]*$", disk.name):
            device = device.having(id=disk.name)
        if halting and _HALTING.match(kind):
            device = device.having(werror="stop", rerror="stop")
        return device

    def _adjust_flash(self, drive: Drive) -> None:
        if drive.read_only:
            self._require(drive.file, "the VM's firmware")
            self._keep(drive)
            return
        if self._place.variables is None:
            raise errors.NotFound(
                "The VM has UEFI variables, and the snapshot has not: its firmware would not know what to boot."
                " Restore the disks with 'headstart restore', and start the VM with variables of its own."
            )
        number, file = drive.options[0], str(self._place.variables)
        old = self._line.options[number]
        if old.name == "drive":
            kept = {key: value for key, value in old.values.items() if _DRIVE_KEEPS.match(key) or key == "format"}
            self._changed[number] = Option("drive", commandline.compose(kept | {"file": file}))
        else:
            self._kept_nodes.add(number)
            driver = old.word("driver")
            driver = "raw" if driver == "file" else driver
            self._changed[number] = _node({"driver": driver, "node-name": old.word("node-name")}, file)

    def _adjust_medium(self, drive: Drive) -> None:
        """A CD stays in its drive if it is there, and may."""
        old = self._line.options[drive.options[0]]
        is_cd = old.word("media") == "cdrom" or (
            drive.device is not None and self._line.options[drive.device].word("driver").endswith("-cd")
        )
        if drive.file and is_cd and self._place.media and self._place.there(drive.file):
            self._keep(drive)
            if old.name == "drive" and self._place.trusted:
                self._changed[drive.options[0]] = old.having(readonly="on")
            return
        if drive.file:
            self._note(f"drive {plain.line(drive.name)} is empty: {plain.line(drive.file)} is not in a backup")
        if old.name == "drive":
            values = old.values
            kept = {key: value for key, value in values.items() if _DRIVE_KEEPS.match(key)}
            self._changed[drive.options[0]] = Option("drive", commandline.compose(kept))
        elif drive.device is not None:
            self._changed[drive.device] = self._line.options[drive.device].having(drive=None)

    def _leave_out(self, drive: Drive) -> None:
        self._note(f"disk {plain.line(drive.name)} is left out: it is not in the snapshot")
        for number in drive.options:
            if self._line.options[number].name == "drive":
                self._changed[number] = None
        if drive.device is not None:
            self._changed[drive.device] = None

    def _keep(self, drive: Drive) -> None:
        """It is on this host, and is read only."""
        self._kept_nodes.update(drive.options)
        if not self._place.trusted:
            self._changed |= {number: trust.medium(self._line.options[number]) for number in drive.options}

    def _require(self, file: str, what: str) -> None:
        if file and not self._place.there(file):
            raise errors.NotFound(
                f"{plain.line(file)}, {what}, is not on this host. Install it (Debian: ovmf), or put it there.",
                file=file,
            )

    # -- everything else

    def _adjusted(self, number: int) -> Iterator[Option]:
        given = self._line.options[number]
        if number in self._changed:
            changed = self._changed[number]
            given_or_none = () if changed is None else (changed,)
            yield from given_or_none
            return
        adjust = _ADJUSTED.get(given.name)
        if given.name in characters.NAMES:
            yield from self._characters.adjusted(given)
            return
        if given.name in _OURS or (given.name == "blockdev" and number not in self._kept_nodes):
            return
        if given.name in _SHARED:
            if _SHARED[given.name]:
                self._note(f"-{given.name} is left out: {_SHARED[given.name]}")
        elif adjust is not None:
            yield from adjust(self, given)
        else:
            yield given

    def _adjust_m(self, given: Option) -> Iterator[Option]:
        if self._place.memory is None:
            yield given
            return
        if any(each.word("qom-type").startswith("memory-backend") for each in self._objects()):
            raise errors.Usage("The VM's memory is described in pieces: it takes no --memory. Leave it out.")
        yield option("m", first=f"{-(-self._place.memory // units.MIB)}M")

    def _objects(self) -> list[Option]:
        return [each for each in self._line.options if each.name == "object"]

    def _memory(self) -> int:
        given = self._line.first("m")
        if self._place.memory is not None and given is not None:
            return self._place.memory
        return memory_of(given.word("size")) if given is not None else 128 * units.MIB

    def _adjust_device(self, given: Option) -> Iterator[Option]:
        driver = given.word("driver")
        for pattern, why in _DEVICES_LEFT_OUT:
            if re.match(pattern, driver):
                self._note(f"device {plain.line(driver)} is left out: {why}")
                return
        yield given

    def _adjust_object(self, given: Option) -> Iterator[Option]:
        kind = given.word("qom-type")
        if _OBJECTS_LEFT_OUT.match(kind):
            return
        if kind in ("memory-backend-file", "memory-backend-memfd", "memory-backend-shm"):
            # Two VMs upon one file would be in each other's memory.
            self._note("the VM's memory is the host's ordinary memory, and no file")
            share = given.word("share") or None
            yield option(
                "object", first="memory-backend-ram", id=given.word("id"), size=given.word("size"), share=share
            )
            return
        yield given

    def _adjust_spice(self, given: Option) -> Iterator[Option]:
        yield option("spice", unix="on", addr=str(self._socket("spice")), disable_ticketing="on")

    def _adjust_usbdevice(self, given: Option) -> Iterator[Option]:
        if given.text in ("tablet", "mouse", "keyboard", "wacom-tablet", "braille"):
            yield given
        else:
            self._note(f"-usbdevice {plain.line(given.text or '')} is left out: a device of the host")

    # -- network

    def _adjust_netdev(self, given: Option) -> Iterator[Option]:
        if self._place.network:
            self._refuse_descriptors(given)
            yield given
        else:
            yield option("netdev", first="hubport", id=given.word("id"), hubid=str(self._hub()))

    def _adjust_nic(self, given: Option) -> Iterator[Option]:
        if self._place.network or given.word("type") == "none":
            self._refuse_descriptors(given)
            yield given
            return
        name = given.word("id") or f"hs-nic{self._hubs}"
        yield option("netdev", first="hubport", id=name, hubid=str(self._hub()))
        yield option(
            "net", first="nic", netdev=name, macaddr=given.word("mac") or None, model=given.word("model") or None
        )

    def _adjust_net(self, given: Option) -> Iterator[Option]:
        if self._place.network:
            self._refuse_descriptors(given)
        if self._place.network or given.word("type") in ("nic", "none"):
            yield given

    def _hub(self) -> int:
        """One for each card: nothing is connected."""
        self._hubs += 1
        return 1000 + self._hubs

    def _refuse_descriptors(self, given: Option) -> None:
        if any(key in ("fd", "fds", "vhostfd", "vhostfds") for key in given.values):
            raise errors.Unsupported(
                f"-{given.name} names open files that QEMU was handed when it was started: it cannot be connected"
                " again. Boot without --network."
            )

    # -- what was there without being said

    def _added(self) -> Iterator[Option]:
        if self._line.first("nodefaults") is not None:
            return
        if not self._place.network and self._line.first("net", "nic", "netdev") is None:
            yield option("net", first="nic")
        if self._line.first("serial") is None:
            yield from self._characters.adjusted(Option("serial", "stdio"))

    def _screen(self) -> Path | None:
        """Where there was one, or QEMU would have made one."""
        display = self._line.first("display")
        if self._line.first("vnc", "sdl") is None:
            if display is not None and (display.text or "").split(",")[0] in ("none", "curses"):
                return None
            if self._line.first("nographic", "curses", "spice") is not None:
                return None
            if display is None and self._line.first("nodefaults") is not None:
                return None
        return self._socket("vnc")


#: By options, what adjusts them.
_ADJUSTED: Mapping[str, Callable[[_Derivation, Option], Iterator[Option]]] = {
    "device": _Derivation._adjust_device,
    "m": _Derivation._adjust_m,
    "net": _Derivation._adjust_net,
    "netdev": _Derivation._adjust_netdev,
    "nic": _Derivation._adjust_nic,
    "object": _Derivation._adjust_object,
    "spice": _Derivation._adjust_spice,
    "usbdevice": _Derivation._adjust_usbdevice,
}
#: Those that this is about; all others stay as they are.
_HANDLED = frozenset({*_OURS, *_REFUSED, *_SHARED, *_ADJUSTED, *characters.NAMES, *drives.SHORT, "drive"})


def _node(values: Mapping[str, Any], file: str) -> Option:
    return Option("blockdev", json.dumps({**values, "file": {"driver": "file", "filename": file}}))


def _doubled(path: Path) -> str:
    return str(path).replace(",", ",,")
