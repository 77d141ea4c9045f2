"""What the tests of QEMU's points in time share."""

from __future__ import annotations

from headstart import blocks, units
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.contract import PointInTime, PointRequest, Protects
from headstart.reading import Reader

#: Sizes of the disks that ``bare.two`` makes.
SIZES = {"dev-one": 8 << 20, "dev-two": (4 << 20) + 1536}


def everything() -> dict[str, Blocks]:
    return {name: blocks.everything(size, units.BLOCK_SIZE) for name, size in SIZES.items()}


def request(*, freeze: bool = False, reserve: int = 0) -> PointRequest:
    return PointRequest((), (), everything(), freeze, dict.fromkeys(SIZES, reserve))


def content(reader: Reader, start: int, length: int) -> bytes:
    pieces = {}
    for piece in reader.read([Extent(start, length)]):
        pieces[piece.extent.start] = bytes(piece.extent.length) if piece.data is None else bytes(piece.data)
        piece.release()
    return b"".join(pieces[position] for position in sorted(pieces))


def holds(point: PointInTime, disk: str, pattern: int) -> bool:
    """All of the disk is one byte again and again."""
    reader = point.reader(disk)
    assert point.protects is Protects.ALL or point.protected(disk) == everything()[disk]
    return content(reader, 0, reader.size) == bytes([pattern]) * reader.size
