"""The partitions of a disk (GPT, MBR with logical ones, and the rarer tables that The Sleuth Kit knows)."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator

import pytsk3

from headstart.volumes import volume
from headstart.volumes.filesystem import Source
from headstart.volumes.filesystems.sleuthkit import SourceImage
from headstart.volumes.volume import Volume

#: Of The Sleuth Kit (tsk_vs.h).
_ALLOCATED = 1
_DOS, _GPT = 0x1, 0x10
_FIRST_LOGICAL = 5


def find(disk: str, source: Source) -> Iterator[Volume]:
    """None where there is no table."""
    try:
        table = pytsk3.Volume_Info(SourceImage(source))
    except OSError:
        return
    kind, sector = int(table.info.vstype), table.info.block_size
    logical = _FIRST_LOGICAL
    for part in table:
        start, size = part.start * sector, part.len * sector
        if int(part.flags) != _ALLOCATED or start >= source.size:
            continue
        if kind == _DOS and part.table_num > 0:
            number, logical = logical, logical + 1
        elif kind in (_DOS, _GPT):
            number = part.slot_num + 1
        else:
            number = part.addr
        yield volume.partition(
            disk,
            str(number),
            start,
            min(size, source.size - start),
            partition_label=part.desc.decode("utf-8", "replace") if kind == _GPT else "",
            partition_uuid=_uuid(source, kind, sector, number),
        )


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
