"""Chunks that somebody needs and no index finds. If a disk full of packs is away they are many: 10 bytes are kept of
each, which are enough to tell it from all but one of a million."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from headstart.blocks import Blocks

_PARTS = struct.Struct("<III")


class Missed:
    def __init__(self) -> None:
        self._parts = Blocks(), Blocks(), Blocks()

    def __bool__(self) -> bool:
        return bool(self._parts[0])

    def __contains__(self, chunk_id: bytes) -> bool:
        """Never False for one that was added."""
        return all(part in known for part, known in zip(_PARTS.unpack_from(chunk_id), self._parts, strict=True))

    def update(self, chunk_ids: Iterable[bytes]) -> None:
        for chunk_id in chunk_ids:
            for part, known in zip(_PARTS.unpack_from(chunk_id), self._parts, strict=True):
                known.add(part)
