"""FAT12, FAT16 and FAT32, by ourselves.

The Sleuth Kit takes clusters that are missing for holes, leaves out what looks odd to it, and has one name for many
that have letters beyond ASCII. Format: Microsoft's FAT file system specification, and fs/fat of Linux.
"""

from __future__ import annotations

import calendar
import itertools
import struct
import time
from collections.abc import Iterable, Iterator

from headstart.volumes.filesystem import Details, Entry, Kind, Malformed, Node, Source
from headstart.volumes.filesystems.clusters import Clusters
from headstart.volumes.filesystems.sourcefile import read_runs
from headstart.volumes.filesystems.tsk import unknown

_ENTRY = 32
_DELETED = 0xE5
_VOLUME_LABEL, _DIRECTORY = 0x08, 0x10
#: A part of a long name, which stands before its entry, the last part first.
_PART, _LAST = 0x0F, 0x40
#: The name, or what follows its dot, is shown in small letters.
_SMALL_NAME, _SMALL_EXTENSION = 0x08, 0x10
#: In short ones, beside bytes of letters that are no ASCII.
_NOT_IN_NAMES = {*range(32), *b'"*+,./:;<=>?[\\]|', *range(ord("a"), ord("z") + 1)} - {0x05}
_LONGEST_DIRECTORY = 65536 * _ENTRY
#: What short names are written in: which it was is told nowhere. It has a letter for each byte.
_CODE_PAGE = "cp437"


class Fat:
    """The number of a file is where its entry stands, in entries; that of the root is 0, where the boot sector is."""

    root = 0

    def __init__(self, source: Source) -> None:
        self._source = source
        boot = source.read(0, 512)
        if len(boot) < 512:
            raise Malformed("a boot sector that makes no sense")
        sector, per_cluster, reserved, tables, roots, sectors, per_table = struct.unpack_from("<HBHBHHxH", boot, 11)
        flags = 0
        if is_large := not per_table:
            per_table, flags = struct.unpack_from("<IH", boot, 36)
        sectors = sectors or struct.unpack_from("<I", boot, 32)[0]
        if sector not in (512, 1024, 2048, 4096) or not per_cluster or not per_table or not reserved or not tables:
            raise Malformed("a boot sector that makes no sense")
        area = reserved + tables * per_table
        heap = area + -(-roots * _ENTRY // sector)
        count = (sectors - heap) // per_cluster
        bits = 28 if is_large else 12 if count < 4085 else 16
        count = min(count, per_table * sector * 8 // (32 if is_large else bits) - 2)
        if count <= 0:
            raise Malformed("a boot sector that makes no sense")
        active = flags & 0xF if flags & 0x80 else 0
        self._first = struct.unpack_from("<I", boot, 44)[0] if is_large else 0
        self._roots = slice(area * sector, area * sector + roots * _ENTRY)
        table = (reserved + active * per_table) * sector
        self._clusters = Clusters(source, table, bits, heap * sector, per_cluster * sector, count)

    def notes(self) -> Iterable[str]:
        return ()

    def node(self, number: int) -> Node:
        return _node(number, self._entry(number)) if number else ROOT

    def entries(self, number: int) -> Iterator[Entry]:
        left = self._directory(number)
        for place, entry, name in _names(left):
            yield Entry(name, _node(place // _ENTRY, entry))
        if seems_cut(self._is_plausible(entry) for _, entry in left):
            yield Entry("", unknown(number))

    def details(self, number: int) -> Details:
        node = self.node(number)
        if node.kind != "file":
            return Details(node, (), "", {})
        return Details(node, self._clusters.runs(self._cluster(self._entry(number)), node.size), "", {})

    def read(self, number: int, start: int, length: int) -> bytes:
        found = self.details(number)
        return read_runs(self._source, found.runs or (), start, min(start + length, found.node.size))

    def _entry(self, number: int) -> bytes:
        entry = self._source.read(number * _ENTRY, _ENTRY)
        if len(entry) < _ENTRY or entry[0] in (0, _DELETED) or entry[11] & _VOLUME_LABEL:
            raise Malformed("a file that is not described")
        return entry

    def _cluster(self, entry: bytes) -> int:
        high, low = struct.unpack_from("<H4xH", entry, 20)
        return int(high << 16 | low if self._first else low)

    def _is_plausible(self, entry: bytes) -> bool:
        """No bytes of a picture."""
        cluster = self._cluster(entry)
        date, size = struct.unpack_from("<H2xI", entry, 24)
        return (
            not _NOT_IN_NAMES & {*entry[:11]}
            and not entry[11] & (_VOLUME_LABEL | 0xC0)
            and not entry[12] & ~(_SMALL_NAME | _SMALL_EXTENSION)
            and 1 <= date >> 5 & 15 <= 12
            and size <= (0 if not cluster or entry[11] & _DIRECTORY else self._clusters.count * self._clusters.size)
            and (not cluster or 2 <= cluster < self._clusters.count + 2)
        )

    def _directory(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Where its entries stand, and what."""
        if not number and not self._first:
            area = self._source.read(self._roots.start, self._roots.stop - self._roots.start)
            return entries(self._roots.start, area)
        if number and not self._entry(number)[11] & _DIRECTORY:
            raise Malformed("a directory that is none")
        first = self._cluster(self._entry(number)) if number else self._first
        found = itertools.chain.from_iterable(
            entries(place, block) for place, block in self._clusters.chain(first, _LONGEST_DIRECTORY)
        )
        if not number:
            return found
        own = next(found)
        if own[1][:11] != b".          ":
            raise Malformed("a directory that does not begin with itself")
        return found


def entries(place: int, area: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(area) - _ENTRY + 1, _ENTRY):
        yield place + at, area[at : at + _ENTRY]


def seems_cut(behind: Iterable[bool]) -> bool:
    """Whether names stand behind the end of a directory, or something is wrong there. All systems stop at the end, and
    cameras leave there what was in a cluster before; but a part of a directory may also have become zeroes."""
    try:
        return any(behind)
    except Malformed:
        return True


def _names(entries: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, str]]:
    """Up to the end of the directory."""
    parts: list[bytes] = []
    missing, check = 0, -1
    for place, entry in entries:
        if not entry[0]:
            return
        if entry[0] == _DELETED:
            parts = []
        elif entry[11] & 0x3F == _PART:
            number = entry[0] & 0x3F
            if entry[0] & _LAST:
                parts, missing, check = [], number, entry[13]
            belongs = number == missing > 0 and entry[13] == check
            parts = [entry[1:11] + entry[14:26] + entry[28:32], *parts] if belongs else []
            missing = missing - 1 if belongs else 0
        else:
            its = bool(parts) and not missing and check == _checksum(entry)
            name = text(b"".join(parts)) if its else _short(entry)
            parts = []
            if not entry[11] & _VOLUME_LABEL and name not in (".", ".."):
                yield place, entry, name


def text(name: bytes) -> str:
    """Half of a pair stands for itself, as in names that are no UTF-8."""
    units = name.decode("utf-16-le", "surrogatepass").partition("\0")[0]
    return units.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")


def _short(entry: bytes) -> str:
    whole = b"\xe5" + entry[1:11] if entry[0] == 0x05 else entry[:11]
    name, extension = (part.rstrip(b" ").decode(_CODE_PAGE) for part in (whole[:8], whole[8:]))
    name = name.lower() if entry[12] & _SMALL_NAME else name
    extension = extension.lower() if entry[12] & _SMALL_EXTENSION else extension
    return f"{name}.{extension}" if extension else name


def _checksum(entry: bytes) -> int:
    found = 0
    for byte in entry[:11]:
        found = ((found & 1) << 7) + (found >> 1) + byte & 0xFF
    return found


def _node(number: int, entry: bytes) -> Node:
    is_directory = bool(entry[11] & _DIRECTORY)
    size = 0 if is_directory else struct.unpack_from("<I", entry, 28)[0]
    accessed, clock, date = struct.unpack_from("<H2xHH", entry, 18)
    return node_of(number, is_directory, size, time_of(accessed, 0), time_of(date, clock))


def node_of(number: int, is_directory: bool, size: int, accessed: int, modified: int) -> Node:
    kind: Kind = "directory" if is_directory else "file"
    return Node(number, kind, 0o755 if is_directory else 0o644, 0, 0, size, 1, accessed, modified, 0)


ROOT = node_of(0, True, 0, 0, 0)


def time_of(date: int, clock: int, zone: int = 0) -> int:
    """What the clock on the wall showed: taken for the one here, unless ``zone`` tells quarters of an hour from UTC, in
    seven bits below one that is set."""
    if not date:
        return 0
    day = (1980 + (date >> 9), date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63, 2 * (clock & 31))
    try:
        if zone & 0x80:
            seconds = calendar.timegm(day) - 900 * ((zone & 0x7F ^ 0x40) - 0x40)
        else:
            seconds = int(time.mktime((*day, 0, 0, -1)))
    except (OverflowError, ValueError):
        return 0
    return seconds * 10**9
