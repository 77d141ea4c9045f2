"""XFS through dissect.xfs, which is an extra for its licence (AGPL-3.0)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from headstart.volumes import posixacl
from headstart.volumes.filesystem import Details, Entry, Malformed, Node, NotSupported, Run, Source
from headstart.volumes.filesystems import xfsdirs
from headstart.volumes.filesystems.sourcefile import SourceFile, read_runs
from headstart.volumes.filesystems.tsk import kind_of, unknown

_LOCAL, _EXTENTS, _BTREE = 1, 2, 3
_REALTIME = 0x01
_ROOT, _SECURE = 0x02, 0x04
_ACLS = {"SGI_ACL_FILE": "system.posix_acl_access", "SGI_ACL_DEFAULT": "system.posix_acl_default"}


class Xfs:
    def __init__(self, source: Source) -> None:
        try:
            from dissect.xfs import xfs
        except ImportError:
            raise NotSupported("to read XFS, install headstart-xfs (Debian), or 'headstart[xfs]' (pip, pipx)") from None
        self._library: Any = xfs
        self._source = source
        self._fs: Any = xfs.XFS(SourceFile(source))
        self.root: int = self._fs.root.inum

    def notes(self) -> Iterable[str]:
        yield (
            "whether its journal had to be replayed cannot be told: what was written in the last seconds may be "
            "missing or of before"
        )

    def node(self, number: int) -> Node:
        return self._node(self._fs.get_inode(number))

    def entries(self, number: int) -> Iterator[Entry]:
        for name, its in self._names(self._fs.get_inode(number)):
            if name in (".", ".."):
                continue
            try:
                yield Entry(name, self.node(its))
            except (self._library.Error, EOFError, Malformed):
                yield Entry(name, unknown(its))

    def _names(self, inode: Any) -> Iterator[tuple[str, int]]:
        if kind_of(inode.inode.di_mode) != "directory":
            raise Malformed("a directory that is none")
        if int(inode.inode.di_format) == _LOCAL:
            for each in inode.iterdir():
                yield each.filename, each.inum
            return
        each = self._fs.block_size
        block_size, most = each << self._fs.sb.sb_dirblklog, min(inode.size, xfsdirs.LARGEST) // each
        placed: set[int] = set()
        for start, _, count, _ in _extents(inode):
            placed.update(range(start, min(start + count, most)))
        directory = xfsdirs.Directory(inode.inum, inode.size, block_size, bool(self._fs._has_ftype))
        for number, name in directory.names(inode.open(), lambda at: at // each not in placed):
            yield name.decode("utf-8", "surrogateescape"), number

    def details(self, number: int) -> Details:
        inode = self._fs.get_inode(number)
        node = self._node(inode)
        _refuse_realtime(inode)
        notes: list[str] = []
        xattrs = dict(_xattrs(inode, notes))
        target = inode.link if node.kind == "symlink" else ""
        runs = tuple(self._runs(inode)) if node.kind == "file" else ()
        return Details(node, runs, target, xattrs, tuple(notes))

    def read(self, number: int, start: int, length: int) -> bytes:
        inode = self._fs.get_inode(number)
        _refuse_realtime(inode)
        return read_runs(self._source, self._runs(inode), start, min(start + length, inode.size))

    def _node(self, inode: Any) -> Node:
        told = inode.inode
        kind = kind_of(told.di_mode)
        major = minor = 0
        if kind in ("character", "block"):
            (device,) = struct.unpack(">I", inode.datafork().read(4))
            major, minor = device >> 18 & 0x3FFF, device & 0x3FFFF
        atime, mtime, ctime = (_signed(inode, each) for each in (inode.atime_ns, inode.mtime_ns, inode.ctime_ns))
        mode, links = told.di_mode & 0o7777, told.di_nlink
        return Node(
            inode.inum, kind, mode, told.di_uid, told.di_gid, inode.size, links, atime, mtime, ctime, major, minor
        )

    def _runs(self, inode: Any) -> Iterator[Run]:
        """Not the library's, which do not tell what was reserved from what was written."""
        size = self._fs.block_size
        for start, block, count, unwritten in _extents(inode):
            group, inside = self._library.fsb_to_bb(block, self._fs.sb.sb_agblklog)
            place = (group * self._fs.sb.sb_agblocks + inside) * size
            yield Run(start * size, count * size, None if unwritten else place)


def _extents(inode: Any) -> list[tuple[int, int, int, int]]:
    """As many as it says that it has."""
    if int(inode.inode.di_format) not in (_EXTENTS, _BTREE):
        raise Malformed("a file of which it cannot be told where it lies")
    found = list(itertools.islice(inode._iter_blocks(), inode.data_extents + 1))
    if len(found) != inode.data_extents:
        raise Malformed("a file of which it cannot be told where all of it lies")
    return found


def _signed(inode: Any, time: int) -> int:
    """The library does not know of times before 1970 where there are 32 bits for them."""
    return time if inode._has_bigtime() or time < 10**9 << 31 else time - (10**9 << 32)


def _refuse_realtime(inode: Any) -> None:
    """Its extents are of another device: here those blocks hold something else, if anything."""
    if inode.inode.di_flags & _REALTIME and inode.size:
        raise NotSupported("its content is on a realtime device of XFS")


def _xattrs(inode: Any, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """Those within the inode (``struct xfs_attr_shortform``), where nearly all are."""
    if not inode.inode.di_forkoff:
        return
    if int(inode.inode.di_aformat) != _LOCAL:
        if inode.attr_extents:
            notes.append(
                "extended attributes that have no room in the inode are not read from XFS, and were not restored"
            )
        return
    area: bytes = inode.attrfork().read()
    total, count = struct.unpack_from(">HB", area)
    at = 4
    for _ in range(count):
        if at + 3 > min(total, len(area)):
            raise Malformed("extended attributes without an end")
        name_length, length, flags = struct.unpack_from(">BBB", area, at)
        name = area[at + 3 : at + 3 + name_length].decode("utf-8", "surrogateescape")
        value = area[at + 3 + name_length : at + 3 + name_length + length]
        at += 3 + name_length + length
        if flags not in (0, _ROOT, _SECURE):  # incomplete, or the directory above it: no attributes to the guest
            continue
        if flags & _ROOT and name in _ACLS:
            yield _ACLS[name], posixacl.from_xfs(value)
        else:
            yield ("trusted." if flags & _ROOT else "security." if flags & _SECURE else "user.") + name, value
