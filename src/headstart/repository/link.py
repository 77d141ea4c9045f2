"""Links: objects that name others, with a digest, so that one that is lost or replaced is missed.

Index objects link the index objects and losses that were the newest when they were written; manifests and draft
records do the same. So every one of them but the very newest is linked by some other, at a constant cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blake3 import blake3

from headstart.repository import layout, values
from headstart.store.contract import Data

_PREFIXES = {layout.Kind.INDEX.value: layout.INDEXES, layout.Kind.LOSS.value: layout.LOSSES}
_KINDS = {prefix: kind for kind, prefix in _PREFIXES.items()}


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """``digest``: BLAKE3 of the whole object as it is stored; empty where it does not matter."""

    name: str
    digest: bytes

    @classmethod
    def to(cls, name: str, data: Data) -> Link:
        return cls(name, blake3(data).digest())


def of_json(name: object, digest: object) -> Link:
    """``ValueError`` when it is none."""
    found = Link(values.text(name), values.chunk_id(digest))
    folder, _, object_id = found.name.rpartition("/")
    if f"{folder}/" not in _KINDS or not layout.is_object_id(object_id):
        raise ValueError(f"no link: {found.name!r}")
    return found


def encode(links: Iterable[Link]) -> bytes:
    return b"".join(_encode(link) for link in links)


def _encode(link: Link) -> bytes:
    folder, _, object_id = link.name.rpartition("/")
    return layout.LINK.pack(_KINDS[f"{folder}/"], bytes.fromhex(object_id), link.digest)


def decode(table: bytes) -> list[Link]:
    """``ValueError``, ``KeyError`` or ``struct.error`` when it is no such table."""
    return [
        Link(_PREFIXES[kind] + object_id.hex(), digest) for kind, object_id, digest in layout.LINK.iter_unpack(table)
    ]
