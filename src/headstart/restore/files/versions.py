"""The versions of a file: which snapshots have it, and whether its content is the same as in the one before.

Where the file lies at the same places in both, only those of its bytes are read that lie in blocks in which the
snapshots differ; mostly there are none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from headstart import errors
from headstart.extents import Extent
from headstart.repository import Repository, difference
from headstart.repository.manifest import Manifest
from headstart.restore.files import guestpath
from headstart.restore.files.contents import Contents
from headstart.restore.files.filetree import File
from headstart.volumes import volume
from headstart.volumes.confined import BrokenFileSystem
from headstart.volumes.filesystem import Details, Node

#: Compared with the version in the snapshot before.
State = Literal["new", "same", "metadata", "changed", "absent", "unreadable"]


@dataclass(frozen=True, slots=True)
class Version:
    """``node`` None: there is none in this snapshot, or it cannot be told (``why``). ``read_bytes`` were compared."""

    manifest: Manifest
    state: State
    node: Node | None = None
    why: str = ""
    read_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    contents: Contents
    file: File
    details: Details


def of(repo: Repository, manifests: Iterable[Manifest], path: guestpath.GuestPath) -> Iterator[Version]:
    """One for each snapshot, in the order given, which is that of time."""
    before: _Found | None = None
    for manifest in manifests:
        contents = None
        try:
            contents = Contents(repo, manifest)
            _, file = contents.find(path)
            found = _Found(contents, file, file.details())
            version = _compared(repo, before, found)
        except errors.NotFound as error:
            version = Version(manifest, "absent", why=" ".join((str(error), *getattr(error, "__notes__", ()))))
        except (errors.Damaged, errors.Unsupported, errors.Usage, BrokenFileSystem) as error:
            version = Version(manifest, "unreadable", why=str(error))
        if version.node is not None:
            if before is not None:
                before.contents.close()
            before = found
        elif contents is not None:
            contents.close()
        yield version
        if version.state == "absent" and before is not None:
            before.contents.close()
            before = None
    if before is not None:
        before.contents.close()


def _compared(repo: Repository, before: _Found | None, now: _Found) -> Version:
    manifest, node = now.contents.manifest, now.file.node
    if before is None:
        return Version(manifest, "new", node)
    old = before.file.node
    if old.kind != node.kind or before.details.target != now.details.target:
        return Version(manifest, "changed", node)
    same, read = True, 0
    if node.kind == "file":
        same, read = _same_content(repo, before, now)
    if not same:
        return Version(manifest, "changed", node, read_bytes=read)
    return Version(manifest, "same" if _dress(before) == _dress(now) else "metadata", node, read_bytes=read)


def _dress(found: _Found) -> tuple[object, ...]:
    node = found.file.node
    return node.mode, node.uid, node.gid, node.mtime, dict(found.details.xattrs)


def _same_content(repo: Repository, before: _Found, now: _Found) -> tuple[bool, int]:
    """Whether it is, and how many bytes of it were read to know."""
    if before.details.node.size != now.details.node.size:
        return False, 0
    size = now.details.node.size
    spans = [Extent(0, size)] if size else []
    if _lies_as_before(before, now):
        spans = _in_doubt(repo, before, now)
    read = 0
    for span in spans:
        for start in range(span.start, span.end, 1 << 20):
            length = min(1 << 20, span.end - start)
            read += length
            contents = [each.file.system.read(each.details, start, length) for each in (before, now)]
            if contents[0] != contents[1]:
                return False, read
    return True, read


def _lies_as_before(before: _Found, now: _Found) -> bool:
    here = before.file.system.volume, before.details.runs
    there = now.file.system.volume, now.details.runs
    return now.details.runs is not None and here == there


def _in_doubt(repo: Repository, before: _Found, now: _Found) -> list[Extent]:
    """Parts of the file that lie where the disks differ."""
    changed = {
        found.disk: list(found.extents)
        for found in difference.between(repo, before.contents.manifest, now.contents.manifest)
    }
    spans = []
    for run in now.details.runs or ():
        position = run.start
        for disk, extent in volume.places(now.file.system.volume, run.place or 0, run.length):
            spans += [
                Extent(position + low - extent.start, high - low) for low, high in _overlaps(extent, changed[disk])
            ]
            position += extent.length
    return spans


def _overlaps(extent: Extent, others: list[Extent]) -> Iterator[tuple[int, int]]:
    """``others`` are ascending."""
    for other in itertools.takewhile(lambda each: each.start < extent.end, others):
        low, high = max(extent.start, other.start), min(extent.end, other.end)
        if low < high:
            yield low, high
