"""The guest's block devices as agentd tells them: values. The guest's word, so everything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart import plain
from headstart.agentd import segments
from headstart.agentd.segments import Segment, Stripe
from headstart.extents import Extent, merge
from headstart.guest.channel import Lost

#: A guest has fewer of anything.
_MOST = 4096
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A whole disk. ``pci`` is the function that it, or its controller, is."""

    name: str
    size: int
    serial: str
    wwn: str
    pci: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A partition, logical volume or other device on disks. ``segments`` None: where it lies cannot be told."""

    name: str
    size: int
    kind: str
    label: str
    segments: tuple[Segment, ...] | None

    def extents(self) -> dict[str, list[Extent]]:
        """What it takes of each disk. Raises ``ValueError`` where that cannot be told."""
        if self.segments is None:
            raise ValueError(self.name)
        found: dict[str, list[Extent]] = {}
        for segment in self.segments:
            for column, stripe in enumerate(segment.stripes):
                length = segments.share(segment, column) if segment.chunk else segment.length
                if length:
                    found.setdefault(stripe.disk, []).append(Extent(stripe.start, length))
        return {disk: merge(extents) for disk, extents in found.items()}


@dataclass(frozen=True, slots=True)
class Mount:
    device: str
    point: str
    type: str


@dataclass(frozen=True, slots=True)
class GuestMap:
    """As of one moment. ``device`` names are the guest kernel's (``vda``, ``sda1``, ``dm-0``)."""

    disks: tuple[GuestDisk, ...]
    volumes: tuple[Volume, ...]
    mounts: tuple[Mount, ...]

    def volume(self, name: str) -> Volume | None:
        return next((volume for volume in self.volumes if volume.name == name), None)

    def mounted_at(self, device: str) -> list[Mount]:
        return [mount for mount in self.mounts if mount.device == device]


def parse(told: Mapping[str, Any]) -> GuestMap:
    """The answer to ``map``. Raises ``Lost`` where it makes no sense."""
    try:
        return GuestMap(
            tuple(_disk(each) for each in _list(told["disks"])),
            tuple(_volume(each) for each in _list(told["volumes"])),
            tuple(Mount(*(_text(each[key]) for key in ("device", "point", "type"))) for each in _list(told["mounts"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Lost(f"The agent in the guest describes its disks in a way that makes no sense: {error!r}") from None


def _disk(told: Mapping[str, Any]) -> GuestDisk:
    return GuestDisk(
        _text(told["name"]), _count(told["size"]), _text(told["serial"]), _text(told["wwn"]), _text(told["pci"])
    )


def _volume(told: Mapping[str, Any]) -> Volume:
    parts = told["segments"]
    return Volume(
        _text(told["name"]),
        _count(told["size"]),
        _text(told["kind"]),
        _text(told["label"]),
        None if parts is None else tuple(_segment(*part) for part in _list(parts)),
    )


def _segment(start: object, length: object, chunk: object, stripes: object) -> Segment:
    columns = tuple(Stripe(_text(disk), _count(begin)) for disk, begin in _list(stripes))
    found = Segment(_count(start), _count(length), columns, _count(chunk))
    if not columns or not found.length or (len(columns) > 1) != bool(found.chunk):
        raise ValueError("a segment without a place")
    return found


def _list(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError("no list, or too long")
    return value


def _text(value: object) -> str:
    """It will be shown to people, whose terminals obey some characters, and stored, where some have no place."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ValueError("no text, or too long")
    return plain.line(value, _LONGEST)


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError("no number")
    return value
