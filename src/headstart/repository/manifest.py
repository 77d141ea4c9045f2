"""The manifest: what a snapshot is made of. Values, and their canonical JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart import blocks
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.repository import link, values
from headstart.repository.link import Link


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a restore needs besides disks: a file of ``size`` bytes, cut into content chunks of block size."""

    name: str
    kind: str
    size: int
    chunks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Excluded:
    """A volume of the guest's that the backup was made without: the ``extents`` of this disk are zeroes in it.

    ``volume`` is its name, DISK, DISK/PARTITION or GROUP/VOLUME; ``content`` what it held, as blkid calls it;
    ``pattern`` the one that left it out (empty: others were named)."""

    volume: str
    content: str
    label: str
    mounted: tuple[str, ...]
    pattern: str
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk. ``root`` is that of its image tree; None is all zeroes. ``facts`` are plain JSON values."""

    name: str
    size: int
    format: str
    root: bytes | None
    block_size: int
    serial: str | None = None
    interface: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    excluded: tuple[Excluded, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot. ``created`` is its point in time in seconds since 1970, UTC; ``base`` the snapshot before it.

    ``links`` are the newest index objects and losses, ``keys`` the names of the key objects, when it was published:
    whoever misses one of them later knows that it is lost. ``twin``: there is a second copy of the manifest.
    """

    id: str
    vm: str
    created: float
    base: str | None
    consistency: str
    host: str
    installation: str
    disks: tuple[Disk, ...]
    attachments: tuple[Attachment, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    keys: tuple[str, ...] = ()
    twin: bool = False


def encode(manifest: Manifest) -> bytes:
    """Equal manifests give equal bytes."""
    text = json.dumps(
        dataclasses.asdict(manifest), sort_keys=True, separators=(",", ":"), allow_nan=False, default=bytes.hex
    )
    return text.encode()


def decode(payload: bytes) -> Manifest:
    """``ValueError`` when it is no manifest. Unknown names are passed over."""
    try:
        return _manifest(values.parse(payload))
    except KeyError as error:
        raise ValueError(f"without {error}") from None


def _manifest(told: Mapping[str, Any]) -> Manifest:
    return Manifest(
        id=values.text(told["id"]),
        vm=values.text(told["vm"]),
        created=values.moment(told["created"]),
        base=values.text_or_none(told["base"]),
        consistency=values.text(told["consistency"]),
        host=values.text(told["host"]),
        installation=values.text(told["installation"]),
        disks=tuple(_disk(values.table(each)) for each in values.items(told["disks"])),
        attachments=tuple(_attachment(values.table(each)) for each in values.items(told["attachments"])),
        facts=values.anything(told["facts"]),
        links=tuple(_link(values.table(each)) for each in values.items(told.get("links", []))),
        keys=tuple(map(values.text, values.items(told.get("keys", [])))),
        twin=told.get("twin", False) is True,
    )


def _disk(told: Mapping[str, Any]) -> Disk:
    return Disk(
        name=values.text(told["name"]),
        size=values.count(told["size"]),
        format=values.text(told["format"]),
        root=None if told["root"] is None else values.chunk_id(told["root"]),
        block_size=values.count(told["block_size"]),
        serial=values.text_or_none(told["serial"]),
        interface=values.text_or_none(told["interface"]),
        facts=values.anything(told["facts"]),
        excluded=excluded_of(told.get("excluded", [])),
    )


def excluded_of(told: object) -> tuple[Excluded, ...]:
    """Of plain JSON. ``ValueError``, ``KeyError`` for what it cannot be."""
    return tuple(_excluded(values.table(each)) for each in values.items(told))


def _excluded(told: Mapping[str, Any]) -> Excluded:
    return Excluded(
        volume=values.text(told["volume"]),
        content=values.text(told["content"]),
        label=values.text(told["label"]),
        mounted=tuple(map(values.text, values.items(told["mounted"]))),
        pattern=values.text(told["pattern"]),
        extents=tuple(_extent(values.table(each)) for each in values.items(told["extents"])),
    )


def _extent(told: Mapping[str, Any]) -> Extent:
    return Extent(values.count(told["start"]), values.count(told["length"]))


def blocks_of(excluded: Iterable[Excluded], block_size: int) -> Blocks:
    """What the backup was made without. Blocks are left out whole or not at all."""
    return blocks.of_extents((extent for each in excluded for extent in each.extents), block_size)


def excluded_blocks(disk: Disk) -> Blocks:
    return blocks_of(disk.excluded, disk.block_size)


def _attachment(told: Mapping[str, Any]) -> Attachment:
    return Attachment(
        name=values.text(told["name"]),
        kind=values.text(told["kind"]),
        size=values.count(told["size"]),
        chunks=tuple(map(values.chunk_id, values.items(told["chunks"]))),
    )


def _link(told: Mapping[str, Any]) -> Link:
    return link.of_json(told["name"], told["digest"])
