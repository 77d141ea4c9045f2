"""exFAT, by ourselves: The Sleuth Kit takes clusters that are missing for holes, and leaves out what looks odd to it.

What was never written of a file reads as zeroes, whatever its clusters hold. Format: Microsoft's exFAT file system
specification.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator

from headstart.volumes.filesystem import Details, Entry, Malformed, Node, Run, Source
from headstart.volumes.filesystems import fat
from headstart.volumes.filesystems.clusters import Clusters
from headstart.volumes.filesystems.sourcefile import read_runs
from headstart.volumes.filesystems.tsk import unknown, written

_ENTRY = 32
#: A file is described by one, where its content is by the next, and its name by those behind it.
_FILE, _STREAM, _NAME = 0x85, 0xC0, 0xC1
#: Of those that belong to another before them.
_SECONDARY = 0xC0
_DIRECTORY = 0x10
#: Of a stream: its clusters lie in a row, and stand in no table.
_IN_A_ROW = 0x02
_LONGEST_DIRECTORY = 256 << 20
#: In the number of a file: the directory that it is in lies in a row.
_WITHIN_A_ROW = 1 << 62
_Entries = Iterator[tuple[int, bytes]]


class Exfat:
    """The number of a file is where its first entry stands, in entries; that of the root is 0."""

    root = 0

    def __init__(self, source: Source) -> None:
        self._source = source
        boot = source.read(0, 512)
        if len(boot) < 512:
            raise Malformed("a boot sector that makes no sense")
        table, length, heap, count, self._first = struct.unpack_from("<IIIII", boot, 80)
        sector_log, cluster_log = boot[108], boot[109]
        if not 9 <= sector_log <= 12 or sector_log + cluster_log > 25:
            raise Malformed("clusters of a size that cannot be")
        table += length * (boot[106] & 1)  # TexFAT has two of them
        count = min(count, (length << sector_log) // 4 - 2)
        size = 1 << sector_log + cluster_log
        self._clusters = Clusters(source, table << sector_log, 32, heap << sector_log, size, count)

    def notes(self) -> Iterable[str]:
        return ()

    def node(self, number: int) -> Node:
        return _node(number, *self._described(number)) if number else fat.ROOT

    def entries(self, number: int) -> Iterator[Entry]:
        entries, flag = self._directory(number)
        for at, described in _sets(entries):
            its = at // _ENTRY | flag
            name = _name(described)
            yield Entry(name, _node(its, described[0], described[1]) if name else unknown(its))
        behind = itertools.pairwise(entry for _, entry in entries)
        if fat.seems_cut(_is_plausible(file, stream) for file, stream in behind):
            yield Entry("", unknown(number))

    def details(self, number: int) -> Details:
        node = self.node(number)
        if node.kind != "file":
            return Details(node, (), "", {})
        _, stream = self._described(number)
        (valid,) = struct.unpack_from("<Q", stream, 8)
        return Details(node, tuple(written(self._runs(stream), valid)), "", {})

    def read(self, number: int, start: int, length: int) -> bytes:
        found = self.details(number)
        return read_runs(self._source, found.runs or (), start, min(start + length, found.node.size))

    def _runs(self, stream: bytes) -> tuple[Run, ...]:
        first, length = struct.unpack_from("<IQ", stream, 20)
        return self._clusters.runs(first, length, is_chained=not stream[1] & _IN_A_ROW)

    def _described(self, number: int) -> tuple[bytes, bytes]:
        """The entry of a file, and that of where its content is: right behind it, or in the next cluster."""
        at = (number & ~_WITHIN_A_ROW) * _ENTRY
        cluster, inside = divmod(at - self._clusters.heap, self._clusters.size)
        behind = at + _ENTRY
        if inside + _ENTRY == self._clusters.size and not number & _WITHIN_A_ROW:
            behind = self._clusters.place(self._clusters.following(cluster + 2))
        file, stream = (self._source.read(place, _ENTRY) for place in (at, behind))
        if len(file) < _ENTRY or len(stream) < _ENTRY or file[0] != _FILE or stream[0] != _STREAM:
            raise Malformed("a file that is not described")
        return file, stream

    def _directory(self, number: int) -> tuple[_Entries, int]:
        """Its entries, and what the numbers of files in it begin with."""
        if not number:
            found = self._clusters.chain(self._first, _LONGEST_DIRECTORY)
            return itertools.chain.from_iterable(fat.entries(place, area) for place, area in found), 0
        file, stream = self._described(number)
        if not file[4] & _DIRECTORY:
            raise Malformed("a directory that is none")
        if struct.unpack_from("<Q", stream, 24)[0] > _LONGEST_DIRECTORY:
            raise Malformed("a directory without an end")
        return self._pieces(stream), _WITHIN_A_ROW if stream[1] & _IN_A_ROW else 0

    def _pieces(self, stream: bytes) -> _Entries:
        for run in self._runs(stream):
            assert run.place is not None
            for at in range(run.place, run.place + run.length, self._clusters.size):
                area = self._source.read(at, self._clusters.size)
                if len(area) < self._clusters.size:
                    raise Malformed("a directory that lies outside of its volume")
                yield from fat.entries(at, area)


def _sets(entries: _Entries) -> Iterator[tuple[int, list[bytes]]]:
    """The entries of each file: where the first stands, and all of them, or less if something else comes between. Up to
    the end of the directory."""
    described: list[bytes] = []
    first, missing = 0, 0
    for at, entry in entries:
        if not (kind := entry[0]):
            break
        if missing and kind & _SECONDARY == _SECONDARY:
            described.append(entry)
            missing -= 1
        elif missing:
            yield first, described
            described, missing = [], 0
        if kind == _FILE:
            first, described, missing = at, [entry], entry[1]
        if described and not missing:
            yield first, described
            described = []
    if missing:
        yield first, described


def _is_plausible(file: bytes, stream: bytes) -> bool:
    """No bytes of a picture: there are as many entries as the name is long."""
    return file[0] == _FILE and stream[0] == _STREAM and file[1] == 1 + -(-stream[3] // 15) > 1


def _name(described: list[bytes]) -> str:
    """Empty: it is not whole."""
    if len(described) != described[0][1] + 1 or len(described) < 3 or described[1][0] != _STREAM:
        return ""
    name = b"".join(entry[2:] for entry in described if entry[0] == _NAME)
    length = 2 * described[1][3]
    return fat.text(name[:length]) if length <= len(name) else ""


def _node(number: int, file: bytes, stream: bytes) -> Node:
    is_directory = bool(file[4] & _DIRECTORY)
    size = 0 if is_directory else struct.unpack_from("<Q", stream, 24)[0]
    clock, date, accessed_clock, accessed = struct.unpack_from("<HHHH", file, 12)
    modified = fat.time_of(date, clock, file[23]) + file[21] * 10**7
    return fat.node_of(number, is_directory, size, fat.time_of(accessed, accessed_clock, file[24]), modified)
