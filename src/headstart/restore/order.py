"""What to restore, and where to: values, and the names of files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from headstart import errors, plain
from headstart.repository.manifest import Attachment, Disk, Manifest

Format = Literal["qcow2", "raw", "vmdk", "vhdx"]

FORMATS: tuple[Format, ...] = get_args(Format)
#: What the name of a target says, if no format is asked for.
_FORMATS: dict[str, Format] = {f".{each}": each for each in FORMATS} | {".img": "raw"}
_DEFAULT: Format = "qcow2"
#: The file by which libvirt starts what was restored.
DOMAIN = "domain.xml"


@dataclass(frozen=True, slots=True)
class Wish:
    """A disk to restore, and the file or block device to restore it to (None: a file in the directory)."""

    disk: str
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """``wishes`` empty: everything. ``format`` None: what the name of a target says, else qcow2. ``lost_as_zeroes``:
    what a repair found lost does not keep a disk from being restored."""

    directory: Path
    wishes: tuple[Wish, ...] = ()
    format: Format | None = None
    lost_as_zeroes: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A disk and its place; ``format`` counts unless the place is a block device."""

    disk: Disk
    place: Path
    format: Format


def parse_wish(text: str) -> Wish:
    """``DISK`` or ``DISK=TARGET``; raises ``Usage``."""
    disk, found, target = text.partition("=")
    if not disk or (found and not target):
        raise errors.Usage(f"A disk to restore is DISK or DISK=TARGET, not {text!r}.")
    return Wish(disk, Path(target) if found else None)


def placed(manifest: Manifest, order: Order) -> tuple[Placed, ...]:
    """Raises ``NotFound`` for a disk that the snapshot has not, ``Usage`` for one that is named twice."""
    disks = {disk.name: disk for disk in manifest.disks}
    wishes = order.wishes or tuple(map(Wish, disks))
    for number, wish in enumerate(wishes):
        if wish.disk not in disks:
            raise errors.NotFound(
                f"Snapshot {manifest.id} has no disk {wish.disk!r}. It has: {', '.join(map(plain.line, disks))}.",
                disk=wish.disk,
            )
        if any(wish.disk == earlier.disk for earlier in wishes[:number]):
            raise errors.Usage(f"Disk {wish.disk} is named twice: name each disk once.")
    return tuple(_placed(disks[wish.disk], wish.target, order) for wish in wishes)


def _placed(disk: Disk, target: Path | None, order: Order) -> Placed:
    if target is not None:
        return Placed(disk, target, order.format or _FORMATS.get(target.suffix.lower(), _DEFAULT))
    chosen = order.format or _DEFAULT
    return Placed(disk, order.directory / f"{file_name(disk.name)}.{chosen}", chosen)


def file_of(attached: Attachment, content: bytes) -> str:
    """The name of the file that an attachment becomes."""
    if attached.kind == "definition":
        return "definition.xml" if content.lstrip().startswith(b"<") else "definition.txt"
    if attached.kind == "uefi-variables":
        return "uefi-variables.fd"
    return file_name(attached.name)


def file_name(name: str) -> str:
    """Nothing that leads out of the directory, or hides."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "_"
