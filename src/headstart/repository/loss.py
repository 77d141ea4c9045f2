"""Losses: what a repair found damaged, for everybody who comes later. They are never changed or taken back.

A loss takes bad copies of chunks out of the index: nothing counts as stored because of them, so the next backup
stores such a chunk again, and the good copy is the one that is read from then on. Where there is no other copy, the bad
one is still tried: it may have come back with the disk that it was on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headstart import errors
from headstart.extents import Extent
from headstart.repository import layout, values

#: Chunks of one pack; None: all of them.
Copies = frozenset[bytes] | None
NONE: frozenset[bytes] = frozenset()

#: Chunks named for one disk of one snapshot; if there are more, it counts as hurt for ever.
MOST_CHUNKS = 4096


@dataclass(frozen=True, slots=True)
class Hurt:
    """What a snapshot needs of the bad copies: parts of a disk, or an attachment as a whole (no extents).

    ``chunks`` None: too many to be named."""

    snapshot: str
    vm: str
    name: str
    extents: tuple[Extent, ...]
    chunks: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True)
class Loss:
    """``copies`` are bad, by pack. ``objects`` are damaged or gone, and missed by nobody. ``snapshots`` (ids) have
    lost their manifests. ``time`` in seconds since 1970, UTC."""

    id: str
    time: float
    copies: Mapping[bytes, Copies] = field(default_factory=dict)
    objects: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    hurt: tuple[Hurt, ...] = ()


def key_of(loss_id: str) -> str:
    return layout.LOSSES + loss_id


def copies_of(losses: Iterable[Loss], pack_id: bytes) -> Copies:
    """The bad copies of one pack, by all losses together."""
    found: set[bytes] = set()
    for loss in losses:
        copies = loss.copies.get(pack_id, NONE)
        if copies is None:
            return None
        found |= copies
    return frozenset(found)


def hurt_by(losses: Iterable[Loss]) -> dict[tuple[str, str], Copies]:
    """By snapshot and name, the chunks that were lost of it at some time; None: too many to be named."""
    found: dict[tuple[str, str], Copies] = {}
    for each in (hurt for loss in losses for hurt in loss.hurt):
        where = each.snapshot, each.name
        known = found.get(where, NONE)
        found[where] = None if known is None or each.chunks is None else known.union(each.chunks)
    return found


def encode(loss: Loss) -> bytes:
    told = {
        "time": loss.time,
        "copies": {pack.hex(): _listed(copies) for pack, copies in sorted(loss.copies.items())},
        "objects": loss.objects,
        "snapshots": loss.snapshots,
        "hurt": [
            {
                "snapshot": each.snapshot,
                "vm": each.vm,
                "name": each.name,
                "extents": [[extent.start, extent.length] for extent in each.extents],
                "chunks": _listed(each.chunks),
            }
            for each in loss.hurt
        ],
    }
    return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _listed(chunks: Iterable[bytes] | None) -> list[str] | None:
    return None if chunks is None else sorted(chunk.hex() for chunk in chunks)


def decode(name: str, payload: bytes) -> Loss:
    try:
        told = values.parse(payload)
        copies = {bytes.fromhex(pack): _set(chunks) for pack, chunks in told["copies"].items()}
        hurt = tuple(map(_hurt, told["hurt"]))
        objects, snapshots = tuple(map(values.text, told["objects"])), tuple(map(values.text, told["snapshots"]))
        return Loss(name.removeprefix(layout.LOSSES), values.moment(told["time"]), copies, objects, snapshots, hurt)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None


def _set(chunks: list[str] | None) -> Copies:
    return None if chunks is None else frozenset(map(bytes.fromhex, chunks))


def _hurt(told: Mapping[str, Any]) -> Hurt:
    chunks = None if told["chunks"] is None else tuple(map(bytes.fromhex, told["chunks"]))
    extents = tuple(Extent(*extent) for extent in told["extents"])
    return Hurt(told["snapshot"], told["vm"], told["name"], extents, chunks)
