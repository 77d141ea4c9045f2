"""Volumes: what lies on the disks of a snapshot. Values, and reading them through views of the disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.agentd import segments
from headstart.agentd.segments import Segment, Stripe
from headstart.extents import Extent
from headstart.volumes.filesystem import Malformed

#: A VM has fewer volumes, and a volume fewer pieces.
MOST = 4096
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Volume:
    """A whole disk, a partition or a logical volume.

    ``name`` is DISK, DISK/PARTITION or GROUP/VOLUME. ``content`` is what was recognised in it (``ext4``, ``ntfs``,
    ``crypto_LUKS``, ... as blkid calls them; empty: nothing). ``segments`` None: where it lies cannot be told, which
    ``problem`` explains. ``doubt``: why where it lies, or what it holds, may be wrong: good enough to look for files,
    and not to leave anything out."""

    name: str
    size: int
    content: str = ""
    label: str = ""
    uuid: str = ""
    partition_uuid: str = ""
    partition_label: str = ""
    segments: tuple[Segment, ...] | None = ()
    problem: str = ""
    doubt: str = ""


class ReadOnlyBytes:
    """A volume, to be read anywhere. ``read_disk(name, start, length)`` reads a disk. Any thread may use it."""

    def __init__(self, volume: Volume, read_disk: Callable[[str, int, int], bytes]) -> None:
        self.size = volume.size
        self._segments = volume.segments or ()
        self._read_disk = read_disk

    def read(self, start: int, length: int) -> bytes:
        """Up to the end of the volume. What no segment covers reads as zeroes. Raises ``Damaged``."""
        end = min(start + length, self.size)
        if start >= end:
            return b""
        parts: list[bytes] = []
        position = start
        for run in segments.runs(self._segments, [(start, end - start)]):
            parts += [bytes(run.volume - position), self._read_disk(run.disk, run.start, run.length)]
            position = run.volume + run.length
        return b"".join((*parts, bytes(end - position)))


def covers(volume: Volume) -> Iterator[tuple[str, Extent]]:
    """Where on which disks all of a volume lies: one piece for each column of each segment."""
    for segment in volume.segments or ():
        for column, stripe in enumerate(segment.stripes):
            length = segments.share(segment, column) if segment.chunk else segment.length
            if length:
                yield stripe.disk, Extent(stripe.start, length)


def places(volume: Volume, start: int, length: int) -> Iterator[tuple[str, Extent]]:
    """On which disks a part of a volume lies."""
    for run in segments.runs(volume.segments or (), [(start, length)]):
        yield run.disk, Extent(run.start, run.length)


def in_order(parts: Iterable[Segment], size: int) -> bool:
    """Whether the segments of a volume of ``size`` bytes ascend, without lying over each other or outside."""
    position = 0
    for part in parts:
        if part.start < position or part.length < 0:
            return False
        position = part.start + part.length
    return position <= size


def partition(disk: str, number: str, start: int, size: int, **facts: str) -> Volume:
    return Volume(f"{disk}/{number}", size, segments=(Segment(0, size, (Stripe(disk, start),)),), **facts)


def whole(disk: str, size: int) -> Volume:
    return Volume(disk, size, segments=(Segment(0, size, (Stripe(disk, 0),)),))


def of_told(told: Any, disks: Mapping[str, int]) -> Volume:
    """The other way than ``dataclasses.astuple``; ``disks`` are the sizes of those there are. ``Malformed``."""
    try:
        name, size, content, label, uuid, partition_uuid, partition_label, parts, problem, doubt = told
        words = (name, content, label, uuid, partition_uuid, partition_label, problem, doubt)
        if not all(isinstance(word, str) and len(word) <= _LONGEST for word in words):
            raise ValueError
        if parts is not None and len(parts) > MOST:
            raise ValueError
        found = None if parts is None else tuple(_segment(*part, disks=disks) for part in parts)
        if not in_order(found or (), _count(size)):
            raise ValueError
        return Volume(name, size, content, label, uuid, partition_uuid, partition_label, found, problem, doubt)
    except (TypeError, ValueError):
        raise Malformed("a volume that makes no sense") from None


def _segment(start: Any, length: Any, stripes: Any, chunk: Any, *, disks: Mapping[str, int]) -> Segment:
    segment = Segment(
        _count(start), _count(length), tuple(Stripe(disk, _count(begin)) for disk, begin in stripes), _count(chunk)
    )
    if not segment.stripes or (len(segment.stripes) > 1) != bool(segment.chunk):
        raise ValueError
    for column, stripe in enumerate(segment.stripes):
        its = segments.share(segment, column) if segment.chunk else segment.length
        if stripe.start + its > disks.get(stripe.disk, -1):
            raise ValueError
    return segment


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError
    return value
