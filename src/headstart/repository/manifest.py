"""The manifest: what a snapshot is made of. Values, and their canonical JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a restore needs besides disks: a file of ``size`` bytes, cut into content chunks of block size."""

    name: str
    kind: str
    size: int
    chunks: tuple[bytes, ...]


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot. ``created`` is its point in time in seconds since 1970, UTC; ``base`` the snapshot before it."""

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


def encode(manifest: Manifest) -> bytes:
    """Equal manifests give equal bytes."""
    text = json.dumps(
        dataclasses.asdict(manifest), sort_keys=True, separators=(",", ":"), allow_nan=False, default=bytes.hex
    )
    return text.encode()


def decode(payload: bytes) -> Manifest:
    """``ValueError``, ``KeyError`` or ``TypeError`` when it is no manifest. Unknown names are passed over."""
    values = json.loads(payload)
    manifest: Manifest = _build(
        Manifest,
        values,
        disks=tuple(_build(Disk, disk, root=_id(disk["root"])) for disk in values["disks"]),
        attachments=tuple(
            _build(Attachment, attached, chunks=tuple(map(bytes.fromhex, attached["chunks"])))
            for attached in values["attachments"]
        ),
    )
    return manifest


def _id(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _build(kind: type[Any], values: dict[str, Any], **decoded: object) -> Any:
    return kind(**({item.name: values[item.name] for item in dataclasses.fields(kind)} | decoded))
