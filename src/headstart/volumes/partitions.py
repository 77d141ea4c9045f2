"""The partitions of a disk (GPT, MBR with logical ones, and the rarer tables that The Sleuth Kit knows)."""

from __future__ import annotations

import itertools
import struct
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytsk3

from headstart.volumes import volume
from headstart.volumes.filesystem import Source
from headstart.volumes.filesystems.sleuthkit import SourceImage
from headstart.volumes.volume import Volume

#: Of The Sleuth Kit (tsk_vs.h).
_ALLOCATED, _LINK = 1, 4
_DOS, _GPT = 0x1, 0x10
_FIRST_LOGICAL = 5
#: Bytes of a table of GPT: as a rule it has 128 entries of 128 bytes.
_LARGEST_TABLE = 1 << 20


def find(disk: str, source: Source) -> list[Volume]:
    """Empty where there is no table. All of a table that may be torn or damaged have the same ``doubt``."""
    try:
        table = pytsk3.Volume_Info(SourceImage(source))
    except OSError:
        return []
    kind, sector = int(table.info.vstype), table.info.block_size
    found, reasons = [], [_doubt_of_gpt(source, sector)] if kind == _GPT else []
    parts = list(table)
    logical: dict[int, int] = {}
    if kind == _DOS:
        logical = _logical(parts)
        reasons.append(_doubt_of_chain(parts))
    for part in parts:
        start, size = part.start * sector, part.len * sector
        if int(part.flags) != _ALLOCATED or start >= source.size:
            continue
        if part.addr in logical:
            number = logical[part.addr]
        elif kind in (_DOS, _GPT):
            number = part.slot_num + 1
        else:
            number = part.addr
        if start + size > source.size:
            reasons.append(f"by the partition table its partition {number} ends behind the disk")
        found.append(
            volume.partition(
                disk,
                str(number),
                start,
                min(size, source.size - start),
                partition_label=part.desc.decode("utf-8", "replace") if kind == _GPT else "",
                partition_uuid=_uuid(source, kind, sector, number),
            )
        )
    doubt = next(filter(None, (*reasons, _overlap(found))), "")
    return [replace(each, doubt=doubt) for each in found]


def _logical(parts: Iterable[Any]) -> dict[int, int]:
    """Numbers of logical partitions, by the library's. Each has a table that links to the next one's: they are numbered
    along this chain, whereas the library lists what there is by where it begins."""
    chain = sorted(
        (each.table_num, each.slot_num, each.addr)
        for each in parts
        if int(each.flags) == _ALLOCATED and each.table_num > 0
    )
    return {each[-1]: number for number, each in enumerate(chain, _FIRST_LOGICAL)}


def _doubt_of_chain(parts: Iterable[Any]) -> str:
    """Where others may number logical partitions in another way: a table has several of them, or several links."""
    its = Counter(
        (int(each.flags), each.table_num)
        for each in parts
        if each.slot_num >= 0 and (each.table_num > 0 or int(each.flags) == _LINK)
    )
    return "its logical partitions are in no simple chain" if any(count > 1 for count in its.values()) else ""


def _overlap(found: list[Volume]) -> str:
    spans = sorted((begin, begin + each.size) for each in found for begin in [_start(each)])
    if any(one[1] > two[0] for one, two in itertools.pairwise(spans)):
        return "by the partition table partitions overlap"
    return ""


def _start(partition: Volume) -> int:
    assert partition.segments, "a partition lies in one piece"
    return partition.segments[0].stripes[0].start


@dataclass(frozen=True, slots=True)
class _Header:
    """Of GPT (UEFI specification, 5.3.2). ``other``: the sector of the second one; ``table``: what its list says."""

    place: int
    other: int
    table: bytes


def _doubt_of_gpt(source: Source, sector: int) -> str:
    """Why the table may be torn: whoever changes one writes it twice, each copy under a checksum."""
    first = _header(source, sector, 1)
    if first is None:
        return "the checksum of its partition table is wrong"
    second = _header(source, sector, first.other)
    if second is None:
        return "the second copy of its partition table is missing or damaged"
    if first.table != second.table or second.other != first.place:
        return "the two copies of its partition table differ"
    return ""


def _header(source: Source, sector: int, place: int) -> _Header | None:
    told = source.read(place * sector, 512)
    if len(told) < 92 or told[:8] != b"EFI PART":
        return None
    length, checksum = struct.unpack_from("<II", told, 12)
    own, other = struct.unpack_from("<QQ", told, 24)
    at, count, width, its = struct.unpack_from("<QIII", told, 72)
    if not 92 <= length <= 512 or own != place or count * width > _LARGEST_TABLE:
        return None
    if zlib.crc32(told[:16] + bytes(4) + told[20:length]) != checksum:
        return None
    table = source.read(at * sector, count * width)
    return _Header(own, other, table) if zlib.crc32(table) == its else None


def _uuid(source: Source, kind: int, sector: int, number: int) -> str:
    """As fstab names it. The library does not tell."""
    if kind == _DOS:
        return f"{int.from_bytes(source.read(440, 4), 'little'):08x}-{number:02x}"
    if kind != _GPT:
        return ""
    header = source.read(sector, 92)
    if header[:8] != b"EFI PART":
        return ""
    table, _, length = struct.unpack_from("<QII", header, 72)
    found = source.read(table * sector + (number - 1) * length + 16, 16)
    return str(uuid.UUID(bytes_le=found)) if len(found) == 16 else ""
