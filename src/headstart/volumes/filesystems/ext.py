"""ext2, ext3 and ext4: lists of blocks through The Sleuth Kit, inodes, directories and extents by ourselves.

The library tells neither extended attributes nor device numbers, nor times after 2038, nor content within inodes.
Format: Documentation/filesystems/ext4 of Linux.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytsk3

from headstart.volumes import posixacl
from headstart.volumes.filesystem import UNREPLAYED, Details, Entry, Malformed, Node, NotSupported, Run, Source
from headstart.volumes.filesystems import extents
from headstart.volumes.filesystems.sourcefile import read_runs
from headstart.volumes.filesystems.tsk import Tsk, kind_of, unknown

_NEEDS_RECOVERY, _META_BG, _64BIT = 0x4, 0x10, 0x80
#: Of those that a reader may pass over otherwise.
_BIGALLOC = 0x200
_ENCRYPTED, _EXTENTS, _INLINE = 0x800, 0x80000, 0x10000000
_XATTR_MAGIC = 0xEA020000
_NAMESPACES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    7: "system.",
}
#: Where inline content goes on that has no room in the inode.
_INLINE_REST = "system.data"
#: Such a file stays inline where truncate(2) of Linux makes it longer, and reads as zeroes from there on. So many bytes
#: are believed: a trap may say any.
_LARGEST_GROWN = 65536
_BLOCK = slice(0x28, 0x64)
#: Of which the length has no room in 16 bits.
_LARGEST_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class _Super:
    """What is needed to find an inode."""

    inodes: int
    first_block: int
    block_size: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    descriptor: int
    incompatible: int
    first_meta_group: int

    @classmethod
    def of(cls, block: bytes) -> _Super:
        (incompatible,) = struct.unpack_from("<I", block, 0x60)
        (revision,) = struct.unpack_from("<I", block, 0x4C)
        inodes, first, log = (struct.unpack_from("<I", block, at)[0] for at in (0, 0x14, 0x18))
        per_group, inodes_per_group = (struct.unpack_from("<I", block, at)[0] for at in (0x20, 0x28))
        inode_size = struct.unpack_from("<H", block, 0x58)[0] if revision else 128
        descriptor = struct.unpack_from("<H", block, 0xFE)[0] if incompatible & _64BIT else 32
        if log > 6 or not inodes_per_group or not per_group or not 128 <= inode_size <= 65536 or descriptor < 32:
            raise Malformed("a superblock that makes no sense")
        return cls(
            inodes,
            first,
            1024 << log,
            per_group,
            inodes_per_group,
            inode_size,
            descriptor,
            incompatible,
            struct.unpack_from("<I", block, 0x104)[0],
        )

    def descriptor_at(self, group: int) -> int:
        """Where a group is described, in bytes."""
        each = self.block_size // self.descriptor
        number, inside = divmod(group, each)
        block = self.first_block + 1 + number
        if self.incompatible & _META_BG and number >= self.first_meta_group:
            first = number * each
            block = self.first_block + first * self.blocks_per_group + _has_super(first)
        return block * self.block_size + inside * self.descriptor


def _has_super(group: int) -> bool:
    """With ``sparse_super``, which every file system with meta groups has."""
    if group <= 1:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


class Ext(Tsk):
    def __init__(self, source: Source) -> None:
        block = source.read(1024, 1024)
        if len(block) < 1024:
            raise Malformed("a superblock that makes no sense")
        if struct.unpack_from("<I", block, 0x64)[0] & _BIGALLOC:
            raise NotSupported("its blocks are allocated in clusters (bigalloc): serve or boot the snapshot")
        super().__init__(source, pytsk3.TSK_FS_TYPE_EXT_DETECT)
        self._super = _Super.of(block)

    def notes(self) -> Iterable[str]:
        if self._super.incompatible & _NEEDS_RECOVERY:
            yield UNREPLAYED

    def node(self, number: int) -> Node:
        return _node(number, self._inode(number))

    def entries(self, number: int) -> Iterator[Entry]:
        """By number, which is the order of inodes on the disk: that of the names, hashes, would read all of their
        blocks again and again, and the library looks at each inode in that order."""
        found = [entry for area in self._areas(number) for entry in _names(area)]
        for its, name in sorted(found):
            try:
                yield Entry(name.decode("utf-8", "surrogateescape"), self.node(its))
            except Malformed:
                yield Entry(name.decode("utf-8", "surrogateescape"), unknown(its))

    def _areas(self, number: int) -> Iterator[bytes]:
        """The blocks of a directory. Those of its index look like ones without names."""
        inode = self._inode(number)
        node = _node(number, inode)
        if node.kind != "directory":
            raise Malformed("a directory that is none")
        if struct.unpack_from("<I", inode, 0x20)[0] & _INLINE:
            yield inode[_BLOCK][4:]  # behind the number of the directory above
            yield dict(self._xattrs(inode, [])).get(_INLINE_REST, b"")
            return
        runs = self._runs(node, inode)
        areas = [
            at
            for run in runs
            if run.place is not None
            for at in range(run.place, run.place + run.length, self.block_size)
        ]
        if not areas or len(areas) * self.block_size < node.size:
            raise Malformed("a directory of which a part is missing")
        for at in areas:
            yield self._exactly(at, self.block_size)

    def details(self, number: int) -> Details:
        inode = self._inode(number)
        node = _node(number, inode)
        notes: list[str] = []
        (flags,) = struct.unpack_from("<I", inode, 0x20)
        if flags & _ENCRYPTED:
            raise NotSupported("it is encrypted by the guest's file system (fscrypt)")
        xattrs = dict(self._xattrs(inode, notes))
        rest = xattrs.pop(_INLINE_REST, None)
        if node.kind == "symlink":
            return Details(node, (), self._target(number, node, inode), xattrs, tuple(notes))
        inline = flags & _INLINE
        most = len(inode[_BLOCK]) if rest is None else max(len(inode[_BLOCK]) + len(rest), _LARGEST_GROWN)
        if inline and node.kind == "file" and node.size > most:
            raise Malformed("a file that ends before its end")
        runs = () if node.kind != "file" else None if inline else self._runs(node, inode)
        return Details(node, runs, "", xattrs, tuple(notes))

    def read(self, number: int, start: int, length: int) -> bytes:
        inode = self._inode(number)
        node = _node(number, inode)
        if struct.unpack_from("<I", inode, 0x20)[0] & _INLINE:
            rest = dict(self._xattrs(inode, [])).get(_INLINE_REST, b"")
            content = (inode[_BLOCK] + rest)[: node.size].ljust(min(node.size, _LARGEST_GROWN), b"\0")
            return content[start : start + length]
        return read_runs(self.source, self._runs(node, inode), start, min(start + length, node.size))

    def _target(self, number: int, node: Node, inode: bytes) -> str:
        """Short ones are within the inode. (A fast link has no blocks; only xattrs may have one.)"""
        if node.size < len(inode[_BLOCK]):
            found = inode[_BLOCK][: node.size]
        else:
            found = self.read(number, 0, min(node.size, 4096))
        return found.decode("utf-8", "surrogateescape")

    def _runs(self, node: Node, inode: bytes) -> tuple[Run, ...]:
        if not node.size:
            return ()
        if struct.unpack_from("<I", inode, 0x20)[0] & _EXTENTS:
            return tuple(extents.runs(self.source, self.block_size, inode[_BLOCK]))
        found = self.runs(self._meta(node.number), node)
        if found is None:
            raise Malformed("a file of which it cannot be told where it lies")
        return found

    def _exactly(self, start: int, length: int) -> bytes:
        found = self.source.read(start, length)
        if len(found) < length:
            raise Malformed("a file that lies outside of its volume")
        return found

    def _inode(self, number: int) -> bytes:
        its = self._super
        if not 0 < number <= its.inodes:
            raise Malformed("an inode that is not there")
        group, index = divmod(number - 1, its.inodes_per_group)
        descriptor = self.source.read(its.descriptor_at(group), its.descriptor)
        if len(descriptor) < its.descriptor:
            raise Malformed("a group that is not there")
        (table,) = struct.unpack_from("<I", descriptor, 8)
        if its.descriptor >= 64:
            table += struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        inode = self.source.read(table * its.block_size + index * its.inode_size, its.inode_size)
        if len(inode) < its.inode_size:
            raise Malformed("an inode that lies outside")
        return inode

    def _xattrs(self, inode: bytes, notes: list[str]) -> Iterator[tuple[str, bytes]]:
        if len(inode) > 128:
            begin = 128 + struct.unpack_from("<H", inode, 0x80)[0]
            if inode[begin : begin + 4] == struct.pack("<I", _XATTR_MAGIC):
                yield from _entries(inode, begin + 4, begin + 4, notes)
        low, high = struct.unpack_from("<I", inode, 0x68)[0], struct.unpack_from("<H", inode, 0x76)[0]
        if place := low | high << 32:
            block = self.source.read(place * self.block_size, self.block_size)
            if block[:4] != struct.pack("<I", _XATTR_MAGIC):
                raise Malformed("extended attributes that are none")
            yield from _entries(block, 32, 0, notes)


def _names(area: bytes) -> Iterator[tuple[int, bytes]]:
    """``struct ext4_dir_entry_2``, one behind the other."""
    at = 0
    while at + 8 <= len(area):
        number, length, name_length = struct.unpack_from("<IHB", area, at)
        if len(area) == _LARGEST_BLOCK and length in (0, 65535):
            length = len(area)
        if length < 8 or name_length > length - 8 or at + length > len(area):
            raise Malformed("a directory that makes no sense")
        name = area[at + 8 : at + 8 + name_length]
        if number and name not in (b"", b".", b".."):
            yield number, name
        at += length


def _entries(area: bytes, at: int, base: int, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """``base`` is where offsets of values count from."""
    while at + 16 <= len(area) and area[at : at + 4] != bytes(4):
        length, namespace, offset, inode, size = struct.unpack_from("<BBHII", area, at)
        name = area[at + 16 : at + 16 + length].decode("utf-8", "surrogateescape")
        at += (16 + length + 3) // 4 * 4
        if namespace not in _NAMESPACES:
            continue
        name = _NAMESPACES[namespace] + name
        if inode:
            notes.append(f"the extended attribute {name} is too large to be read, and was left out")
            continue
        value = area[base + offset : base + offset + size]
        if len(value) != size:
            raise Malformed("an extended attribute without an end")
        if namespace in (2, 3):
            value = posixacl.from_ext(value)
        yield name, value


def _node(number: int, inode: bytes) -> Node:
    mode, uid = struct.unpack_from("<HH", inode, 0)
    gid, links = struct.unpack_from("<HH", inode, 0x18)
    if not mode or not links:
        raise Malformed("an inode that nobody uses")
    uid_high, gid_high = struct.unpack_from("<HH", inode, 0x78)
    low, high = struct.unpack_from("<I", inode, 4)[0], struct.unpack_from("<I", inode, 0x6C)[0]
    kind = kind_of(mode)
    major, minor = _device(inode) if kind in ("character", "block") else (0, 0)
    return Node(
        number,
        kind,
        mode & 0o7777,
        uid | uid_high << 16,
        gid | gid_high << 16,
        low | high << 32,
        links,
        _time(inode, 0x8, 0x8C),
        _time(inode, 0x10, 0x88),
        _time(inode, 0xC, 0x84),
        major,
        minor,
    )


def _time(inode: bytes, place: int, extra_place: int) -> int:
    """The two lowest bits of the extra field go on where the 32 bits of seconds end, the others are nanoseconds."""
    (seconds,) = struct.unpack_from("<i", inode, place)
    extra = 0
    if len(inode) > 128 and 128 + struct.unpack_from("<H", inode, 0x80)[0] >= extra_place + 4:
        (extra,) = struct.unpack_from("<I", inode, extra_place)
    return int((seconds + ((extra & 3) << 32)) * 10**9 + (extra >> 2))


def _device(inode: bytes) -> tuple[int, int]:
    """Both encodings of Linux (include/linux/kdev_t.h)."""
    old, new = struct.unpack_from("<II", inode, 0x28)
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return (new & 0xFFF00) >> 8, new & 0xFF | new >> 12 & 0xFFF00
