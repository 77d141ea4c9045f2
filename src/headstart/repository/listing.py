"""The payload of an index object: what several packs hold, and what other objects there were."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headstart import errors
from headstart.repository import layout, link, packtable
from headstart.repository.link import Link
from headstart.repository.packtable import PackEntries


@dataclass(frozen=True, slots=True)
class Listed:
    """What an index object says. ``links`` were there when it was written; ``replaced`` were damaged."""

    packs: list[PackEntries]
    links: list[Link]
    replaced: list[Link]


def encode(packs: Iterable[PackEntries], links: Sequence[Link] = (), replaced: Sequence[Link] = ()) -> bytes:
    """The payload of an index object."""
    nobody = bytes(layout.OBJECT_ID_LENGTH)
    tables = [
        layout.INDEX_HEAD.pack(each.pack_id, each.chunk_class, each.origins, len(each), len(each.counts))
        + each.encode()
        for each in packs
    ]
    tables += [
        layout.INDEX_HEAD.pack(nobody, what, 0, len(named), 0) + link.encode(named)
        for what, named in ((layout.LINKED, links), (layout.REPLACED, replaced))
        if named
    ]
    return b"".join(tables)


def decode(name: str, payload: bytes, version: int = layout.VERSION) -> Listed:
    """``version`` is the format of the object."""
    found = Listed([], [], [])
    start = 0
    try:
        while start < len(payload):
            head = _Head.decode(payload, start, version)
            start += head.length
            table = payload[start : start + head.table_length]
            start += len(table)
            if len(table) != head.table_length:
                raise ValueError("cut")
            if head.what == layout.LINKED:
                found.links.extend(link.decode(table))
            elif head.what == layout.REPLACED:
                found.replaced.extend(link.decode(table))
            else:
                found.packs.append(head.entries(table))
    except (ValueError, KeyError, struct.error):
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None
    return found


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before each table. ``what``: a class of chunks, ``LINKED``, ``REPLACED``."""

    version: int
    pack_id: bytes
    what: int
    origins: int
    count: int
    frames: int

    @classmethod
    def decode(cls, payload: bytes, start: int, version: int) -> _Head:
        if version == 0:
            pack_id, what, count = layout.INDEX_HEAD_0.unpack_from(payload, start)
            return cls(version, pack_id, what, 0, count, count)
        pack_id, what, origins, count, frames = layout.INDEX_HEAD.unpack_from(payload, start)
        return cls(version, pack_id, what, origins, count, frames)

    @property
    def length(self) -> int:
        return layout.INDEX_HEAD_0.size if self.version == 0 else layout.INDEX_HEAD.size

    @property
    def table_length(self) -> int:
        if self.what in (layout.LINKED, layout.REPLACED):
            return self.count * layout.LINK.size
        if self.version == 0:
            return packtable.table_length_0(self.count)
        return packtable.table_length(self.count, self.frames, self.origins)

    def entries(self, table: bytes) -> PackEntries:
        if self.version == 0:
            return PackEntries.decode_0(self.pack_id, self.what, self.count, table)
        return PackEntries.decode(self.pack_id, self.what, self.count, self.frames, self.origins, table)
