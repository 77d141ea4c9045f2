"""Files of a snapshot as a tar stream (POSIX.1-2001, pax), as GNU tar and bsdtar read it.

Holes of sparse files are left out as GNU's sparse format 1.0 does; extended attributes are SCHILY.xattr.*.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from typing import BinaryIO

from headstart import errors
from headstart.restore.files import filetree
from headstart.restore.files.extraction import Copied, Progress
from headstart.restore.files.filetree import File, FileTree
from headstart.volumes.confined import BrokenFileSystem
from headstart.volumes.filesystem import Details, Kind, Run

_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}
_BLOCK = tarfile.BLOCKSIZE
#: Holes are worth it from so many bytes on.
_WORTH = 64 * 1024


class Archive:
    """A tar stream in the making. ``close`` ends it."""

    def __init__(self, stream: BinaryIO, copied: Copied) -> None:
        self._stream = stream
        self._copied = copied
        self._progress: Progress = lambda _: None
        self._made: dict[tuple[str, int], str] = {}
        self._bytes = 0

    def add(self, tree: FileTree, top: File, name: str, progress: Progress) -> None:
        """``top`` and all below it, under ``name``. What cannot be read is left out, or padded with zeroes where its
        header is written already, and told in ``copied.troubles``. Raises ``OSError`` of the stream."""
        self._progress = progress
        for step in tree.walk(top, self._copied.troubles):
            if step.leaving:
                continue
            try:
                self._add(step.file, "/".join((name, *filetree.relative(top, step.file))))
            except (errors.Damaged, errors.Unsupported, BrokenFileSystem) as error:
                self._copied.troubles.add(step.file.path, str(error))

    def add_text(self, name: str, text: str) -> None:
        """A file of ours, and none of the guest's."""
        content, header = text.encode(), tarfile.TarInfo(name)
        header.size, header.mtime = len(content), int(time.time())
        self._put_header(header)
        self._put(content)
        self._pad(len(content))

    def close(self) -> None:
        self._put(bytes(2 * _BLOCK))
        self._put(bytes(-self._bytes % tarfile.RECORDSIZE))
        self._stream.flush()

    def _add(self, file: File, name: str) -> None:
        kind = file.node.kind
        if kind not in _TYPES:
            self._copied.troubles.add(file.path, f"a tar archive has no place for a {kind} file")
            return
        details = file.details()
        for note in details.notes:
            self._copied.lack(note)
        header = _header(details, name)
        if kind != "directory" and file.identity in self._made and file.node.links > 1:
            header.type, header.linkname = tarfile.LNKTYPE, self._made[file.identity]
            self._put_header(header)
        elif kind == "file":
            self._add_content(file, details, header)
        else:
            header.linkname = details.target
            self._put_header(header)
        self._made[file.identity] = name
        if kind == "directory":
            self._copied.directories += 1
        elif kind == "file":
            self._copied.files += 1
        else:
            self._copied.others += 1

    def _add_content(self, file: File, details: Details, header: tarfile.TarInfo) -> None:
        size = details.node.size
        if details.runs is None:
            file.system.read(details, 0, 1)  # only the driver knows whether there is any, and the header promises it
        runs = list(details.runs) if details.runs is not None else [Run(0, size, None)] if size else []
        data = sum(run.length for run in runs)
        if size - data < _WORTH:
            header.size = size
            self._put_header(header)
            self._put_content(file, details, [Run(0, size, None)] if size else [])
            self._pad(size)
            return
        spans = _joined(runs, size)
        listing = "".join(f"{number}\n" for number in _numbers(spans)).encode()
        listing += bytes(-len(listing) % _BLOCK)
        header.size = len(listing) + data
        header.pax_headers = {
            **header.pax_headers,
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": header.name,
            "GNU.sparse.realsize": str(size),
        }
        self._put_header(header)
        self._put(listing)
        self._put_content(file, details, spans)
        self._pad(data)

    def _put_content(self, file: File, details: Details, spans: list[Run]) -> None:
        """The header has promised so many bytes: what fails is zeroes from there on."""
        failed = ""
        for span in spans:
            position, end = span.start, span.start + span.length
            try:
                if not failed:
                    for start, content in file.system.content(details, position, end):
                        self._zeroes(start - position)
                        self._put(content)
                        self._copied.data_bytes += len(content)
                        self._progress(start + len(content) - position)
                        position = start + len(content)
            except (errors.Damaged, errors.Unsupported, BrokenFileSystem) as error:
                failed = str(error)
                self._copied.troubles.add(file.path, f"from byte {position} on it is zeroes in the archive: {failed}")
            self._zeroes(end - position)

    def _zeroes(self, count: int) -> None:
        while count > 0:
            self._put(bytes(min(count, 1 << 20)))
            count -= 1 << 20

    def _pad(self, size: int) -> None:
        self._put(bytes(-size % _BLOCK))

    def _put_header(self, header: tarfile.TarInfo) -> None:
        self._put(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _put(self, content: bytes) -> None:
        self._stream.write(content)
        self._bytes += len(content)


def _header(details: Details, name: str) -> tarfile.TarInfo:
    node = details.node
    header = tarfile.TarInfo(name)
    header.type = _TYPES[node.kind]
    header.mode, header.uid, header.gid = node.mode, node.uid, node.gid
    header.mtime = node.mtime // 10**9
    header.devmajor, header.devminor = node.major, node.minor
    pax = {}
    if node.mtime % 10**9 or node.mtime < 0:
        pax["mtime"] = _seconds(node.mtime)
    for attribute, value in details.xattrs.items():
        pax[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
    header.pax_headers = pax
    return header


def _seconds(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{rest:09}"


def _joined(runs: list[Run], size: int) -> list[Run]:
    """Neighbours as one; and an empty one at the end, which tells how long the file is."""
    found: list[Run] = []
    for run in runs:
        if found and found[-1].start + found[-1].length == run.start:
            found[-1] = Run(found[-1].start, found[-1].length + run.length, None)
        else:
            found.append(Run(run.start, run.length, None))
    if not found or found[-1].start + found[-1].length < size:
        found.append(Run(size, 0, None))
    return found


def _numbers(spans: list[Run]) -> Iterator[int]:
    yield len(spans)
    for span in spans:
        yield span.start
        yield span.length
