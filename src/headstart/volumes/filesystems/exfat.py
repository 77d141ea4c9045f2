"""exFAT through The Sleuth Kit, and what it does not tell: how much of a file was ever written.

The rest of it reads as zeroes, whatever the clusters hold. Format: Microsoft's exFAT file system specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytsk3

from headstart.volumes.filesystem import Malformed, Node, Run, Source
from headstart.volumes.filesystems.tsk import Tsk, written

_ENTRY = 32
#: The library's number of the first entry among the clusters.
_FIRST = 3
_FILE, _STREAM = 0x85, 0xC0


class Exfat(Tsk):
    def __init__(self, source: Source) -> None:
        super().__init__(source, pytsk3.TSK_FS_TYPE_EXFAT)
        boot = source.read(0, 512)
        table, _, heap, self._clusters = struct.unpack_from("<IIII", boot, 80)
        sector_log, cluster_log = boot[108], boot[109]
        if not 9 <= sector_log <= 12 or sector_log + cluster_log > 25:
            raise Malformed("clusters of a size that cannot be")
        self._table, self._heap = table << sector_log, heap << sector_log
        self._cluster = 1 << sector_log + cluster_log

    def runs(self, file: Any, node: Node) -> tuple[Run, ...] | None:
        found = super().runs(file, node)
        return found and tuple(written(found, self._written(node)))

    def read(self, number: int, start: int, length: int) -> bytes:
        node = self.node(number)
        length = max(0, min(length, node.size - start))
        if node.kind != "file" or not length:
            return super().read(number, start, length)
        told = max(0, min(length, self._written(node) - start))
        return super().read(number, start, told).ljust(length, b"\0")

    def _written(self, node: Node) -> int:
        """``ValidDataLength`` of the stream, whose entry follows that of the file."""
        at = self._heap + (node.number - _FIRST) * _ENTRY
        if self.source.read(at, 1) != bytes([_FILE]):
            raise Malformed("a file that is not described")
        for place in self._places_behind(at):
            entry = self.source.read(place, _ENTRY)
            if len(entry) == _ENTRY and entry[0] == _STREAM:
                valid, length = struct.unpack_from("<Q8xQ", entry, 8)
                if length == node.size:
                    return int(valid)
        raise Malformed("a file of which it cannot be told how much of it was written")

    def _places_behind(self, at: int) -> Iterator[int]:
        """As the library does: right behind it, or in the next cluster of a directory that is in pieces."""
        yield at + _ENTRY
        number, inside = divmod(at - self._heap, self._cluster)
        if inside + _ENTRY == self._cluster:
            entry = self.source.read(self._table + (number + 2) * 4, 4)
            following = int.from_bytes(entry, "little") - 2
            if 0 <= following < self._clusters:
                yield self._heap + following * self._cluster
