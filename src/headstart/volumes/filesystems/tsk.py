"""What the file systems that are read through The Sleuth Kit have in common."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytsk3

from headstart.volumes.filesystem import Details, Entry, Kind, Malformed, Node, Run, Source
from headstart.volumes.filesystems.sleuthkit import SourceImage

#: Of The Sleuth Kit (tsk_fs.h).
_META_KINDS: dict[int, Kind] = {
    1: "file",
    2: "directory",
    3: "fifo",
    4: "character",
    5: "block",
    6: "symlink",
    8: "socket",
}
_ALLOCATED = 1
#: Names that the library invents, such as $OrphanFiles and $MBR.
_VIRTUAL = (10, 11)
_DEFAULT = 1
_NONRESIDENT = 1
#: Bytes of a symbolic link's target, at most.
_LONGEST_LINK = 65536


class Tsk:
    """Files without owners. Raises ``OSError`` where the library makes no sense of what it finds."""

    def __init__(self, source: Source, kind: int) -> None:
        """``kind``: of the library's; to let it find that out costs reading all over the volume."""
        self.source = source
        self.fs = pytsk3.FS_Info(SourceImage(source), 0, kind)
        self.block_size: int = self.fs.info.block_size
        self.root: int = self.fs.info.root_inum

    def notes(self) -> Iterable[str]:
        return ()

    def node(self, number: int) -> Node:
        return self._node(number, self._meta(number))

    def entries(self, number: int) -> Iterator[Entry]:
        for name, its, meta in self.names(number):
            try:
                yield Entry(name, self._node(its, meta))
            except Malformed:
                yield Entry(name, unknown(its))

    def names(self, number: int) -> Iterator[tuple[str, int, Any]]:
        """What stands in a directory: name, number, and the library's file."""
        for file in self.fs.open_dir(inode=number):
            name = file.info.name
            raw: bytes = name.name
            if raw in (b"", b".", b"..") or int(name.type) in _VIRTUAL or not int(name.flags) & _ALLOCATED:
                continue
            if not self.is_hidden(number, raw, name.meta_addr):
                yield raw.decode("utf-8", "surrogateescape"), name.meta_addr, file

    def is_hidden(self, directory: int, name: bytes, number: int) -> bool:
        """Whether users do not see it either."""
        return False

    def details(self, number: int) -> Details:
        file = self._meta(number)
        node = self._node(number, file)
        target = self.target(file, node) if node.kind == "symlink" else ""
        runs = self.runs(file, node) if node.kind == "file" else ()
        return Details(node, runs, target, {})

    def read(self, number: int, start: int, length: int) -> bytes:
        file = self._meta(number)
        length = min(length, file.info.meta.size - start)
        found: bytes = file.read_random(start, length) if length > 0 else b""
        if len(found) != max(0, length):
            raise Malformed("a file that ends before its end")
        return found

    def target(self, file: Any, node: Node) -> str:
        if node.size > _LONGEST_LINK:
            raise Malformed("a symbolic link without an end")
        linked: bytes = file.info.meta.link or file.read_random(0, node.size)
        return linked.decode("utf-8", "surrogateescape")

    def runs(self, file: Any, node: Node) -> tuple[Run, ...] | None:
        for attribute in file:
            if int(attribute.info.type) == _DEFAULT and int(attribute.info.flags) & _NONRESIDENT:
                return tuple(self.run(run) for run in attribute)
        return () if not node.size else None

    def run(self, run: Any) -> Run:
        """Addresses are in blocks. What is 'sparse' is not on the disk; of what is 'filler' it is not known where."""
        if int(run.flags) & pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER:
            raise Malformed("a file of which it cannot be told where a part lies")
        place = None if int(run.flags) else run.addr * self.block_size
        return Run(run.offset * self.block_size, run.len * self.block_size, place)

    def _meta(self, number: int) -> Any:
        return self.fs.open_meta(inode=number)

    def _node(self, number: int, file: Any) -> Node:
        meta = file.info.meta
        if meta is None or not int(meta.flags) & _ALLOCATED:
            raise Malformed("a name for a file that is none")
        kind = _META_KINDS.get(int(meta.type), "unknown")
        return Node(
            number,
            kind,
            0o755 if kind == "directory" else 0o644,
            0,
            0,
            meta.size,
            meta.nlink,
            meta.atime * 10**9 + meta.atime_nano,
            meta.mtime * 10**9 + meta.mtime_nano,
            meta.ctime * 10**9 + meta.ctime_nano,
        )


def unknown(number: int) -> Node:
    return Node(number, "unknown", 0, 0, 0, 0, 0, 0, 0, 0)


def written(runs: Iterable[Run], length: int) -> Iterator[Run]:
    """What of them was ever written: so many bytes from the beginning. The rest reads as zeroes."""
    for run in runs:
        if run.start < length:
            yield replace(run, length=min(run.length, length - run.start))


def kind_of(mode: int) -> Kind:
    """Of ``st_mode``."""
    kinds: dict[int, Kind] = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "character",
        stat.S_IFBLK: "block",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "unknown")
