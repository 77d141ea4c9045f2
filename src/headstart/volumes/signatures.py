"""What a volume holds, told by the marks that its maker left (as in libblkid): pure, a few reads."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from headstart.volumes.filesystem import Source

EXT = ("ext2", "ext3", "ext4")
FAT = ("vfat", "exfat")

#: Name, place and bytes of those that need no further look.
_MARKS = (
    ("crypto_LUKS", 0, b"LUKS\xba\xbe"),
    ("BitLocker", 3, b"-FVE-FS-"),
    ("zfs_member", 128 * 1024, b"\x0c\xb1\xba\0\0\0\0\0"),
    ("bcache", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    ("linux_raid_member", 0x1000, b"\xfc\x4e\x2b\xa9"),
    ("linux_raid_member", 0, b"\xfc\x4e\x2b\xa9"),
    ("hfsplus", 1024, b"H+"),
    ("hfsplus", 1024, b"HX"),
    ("apfs", 32, b"NXSB"),
    ("iso9660", 0x8001, b"CD001"),
    ("squashfs", 0, b"hsqs"),
    ("f2fs", 1024, b"\x10\x20\xf5\xf2"),
    ("ReFS", 3, b"ReFS\0"),
    ("vmfs", 0x100000, b"\x0d\xd0\x01\xc0"),
)


#: At the end of the first page, of which there are several sizes.
_SWAP_PAGES = (4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True, slots=True)
class Content:
    """``kind`` as blkid has it; empty: nothing known."""

    kind: str = ""
    label: str = ""
    uuid: str = ""


def recognise(source: Source) -> Content:
    return next(_found(source), Content())


def kinds(source: Source) -> list[str]:
    """All that the marks could mean. More than one: what was there before was not wiped, or somebody deceives."""
    return list(dict.fromkeys(each.kind for each in _found(source)))


def _found(source: Source) -> Iterator[Content]:
    start = source.read(0, 8192)
    for look in (_ext, _xfs, _ntfs, _exfat, _lvm):
        if found := look(start):
            yield found
    for examine in (_btrfs, _swap):
        if found := examine(source):
            yield found
    for kind, place, mark in _MARKS:
        if source.read(place, len(mark)) == mark:
            yield Content(kind)
    if found := _fat(start):
        yield found


def _ext(start: bytes) -> Content | None:
    """Documentation/filesystems/ext4: super.rst."""
    block = start[1024:2048]
    if block[0x38:0x3A] != b"\x53\xef":
        return None
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 0x5C)
    journal, beyond_ext3 = compatible & 0x4, (incompatible & ~0x16) or (read_only & ~0x7)
    kind = "ext4" if beyond_ext3 else "ext3" if journal else "ext2"
    return Content(kind, _text(block[0x78:0x88]), str(uuid.UUID(bytes=block[0x68:0x78])))


def _xfs(start: bytes) -> Content | None:
    if start[:4] != b"XFSB":
        return None
    return Content("xfs", _text(start[108:120]), str(uuid.UUID(bytes=start[32:48])))


def _ntfs(start: bytes) -> Content | None:
    if start[3:11] != b"NTFS    ":
        return None
    return Content("ntfs", uuid=start[0x48:0x50][::-1].hex().upper())


def _exfat(start: bytes) -> Content | None:
    if start[3:11] != b"EXFAT   ":
        return None
    serial = start[0x64:0x68][::-1].hex().upper()
    return Content("exfat", uuid=f"{serial[:4]}-{serial[4:]}")


def _btrfs(source: Source) -> Content | None:
    block = source.read(0x10000, 0x400)
    if block[0x40:0x48] != b"_BHRfS_M":
        return None
    return Content("btrfs", _text(block[0x12B:0x22B]), str(uuid.UUID(bytes=block[0x20:0x30])))


def _swap(source: Source) -> Content | None:
    """Not one that a hibernated system is in: that has another mark."""
    for page in _SWAP_PAGES:
        if source.read(page - 10, 10) in (b"SWAPSPACE2", b"SWAP-SPACE"):
            header = source.read(1024, 44)
            return Content("swap", _text(header[28:44]), str(uuid.UUID(bytes=header[12:28])))
    return None


def _lvm(start: bytes) -> Content | None:
    for sector in range(0, 2048, 512):
        if start[sector : sector + 8] == b"LABELONE" and start[sector + 24 : sector + 32] == b"LVM2 001":
            return Content("LVM2_member")
    return None


def _fat(start: bytes) -> Content | None:
    """The last to be asked: a boot sector looks much the same in front of other things."""
    if start[510:512] != b"\x55\xaa" or start[0] not in (0xEB, 0xE9):
        return None
    sector, cluster, fats = struct.unpack_from("<H", start, 11)[0], start[13], start[16]
    if sector not in (512, 1024, 2048, 4096) or not cluster or cluster & (cluster - 1) or fats not in (1, 2):
        return None
    for mark, place in ((b"FAT32", 0x52), (b"FAT", 0x36)):
        if start[place : place + len(mark)] == mark:
            serial = start[place - 0xF : place - 0xB][::-1].hex().upper()
            label = _text(start[place - 0xB : place]).strip()
            return Content("vfat", "" if label == "NO NAME" else label, f"{serial[:4]}-{serial[4:]}")
    return None


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace")
