"""A snapshot, or some of its disks, into a directory or onto devices.

First every place is claimed, so that nothing is written if one of them is refused. Each disk gets its name as soon as
it is whole. Damage does not keep the other disks from being restored: it is raised at the end.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.repository import Repository, attachment, lost
from headstart.repository.manifest import Attachment, Disk, Manifest
from headstart.restore import image, order, partfile, space
from headstart.restore.device import BlockDevice, is_device
from headstart.restore.order import Order, Placed
from headstart.restore.partfile import PartFile
from headstart.restore.qcow2 import Qcow2File
from headstart.restore.raw import RawFile
from headstart.restore.target import Target

#: Ranges that a message names.
_RANGES = 10


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """``data_bytes`` were written; the rest of ``size`` is zeroes. ``format`` is qcow2, raw, or device."""

    name: str
    path: Path
    format: str
    size: int
    data_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    snapshot: str
    vm: str
    disks: tuple[RestoredDisk, ...]
    files: tuple[Path, ...]
    seconds: float
    #: What the user should know.
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    placed: Placed
    allocated: Blocks
    lost: Blocks

    @property
    def data_bytes(self) -> int:
        return blocks.total_bytes(self.allocated, self.placed.disk.block_size, self.placed.disk.size)


def restore(repo: Repository, manifest: Manifest, ordered: Order, progress: image.Progress) -> Report:
    """Raises ``NotFound`` for a disk that the snapshot has not, ``TargetRefused`` and ``NoSpace`` (before anything is
    written where that can be known), ``Damaged`` after all that is whole was restored."""
    begun = time.monotonic()
    run = _Run(repo)
    places = order.placed(manifest, ordered)
    for placed in places:
        if not is_device(placed.place):
            partfile.refuse_existing(placed.place)
    jobs = run.survey(places, zeroes=ordered.lost_as_zeroes)
    files = run.read_files(() if ordered.wishes else manifest.attachments, ordered.directory)
    with contextlib.ExitStack() as stack:
        _make(ordered.directory, (*(placed.place for placed in places), *files))
        parts = [(stack.enter_context(PartFile(path, len(content))), content) for path, content in files.items()]
        targets = [stack.enter_context(_target(job)) for job in jobs]
        space.check((job.placed.place.parent, job.data_bytes) for job in jobs if not is_device(job.placed.place))
        claimed: list[PartFile | Target] = [*(part for part, _ in parts), *targets]
        run.notes += [note for each in claimed for note in each.notes]
        for part, content in parts:
            run.write_file(part, content)
        for job, target in zip(jobs, targets, strict=True):
            run.write_disk(job, target, progress)
    run.raise_damage()
    seconds = time.monotonic() - begun
    return Report(manifest.id, manifest.vm, tuple(run.disks), tuple(run.files), seconds, tuple(run.notes))


class _Run:
    """What has been restored, and what was found damaged."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._damage: list[errors.Damaged] = []
        self.disks: list[RestoredDisk] = []
        self.files: list[Path] = []
        self.notes: list[str] = []

    def survey(self, places: Iterable[Placed], *, zeroes: bool) -> list[_Job]:
        """``zeroes``: disks of which something is lost are restored without it."""
        jobs = []
        for placed in places:
            with self._noting_damage():
                missing = lost.unreadable(self._repo, placed.disk)
                if missing and not zeroes:
                    raise self._lost(placed.disk, missing)
                jobs.append(_Job(placed, image.survey(self._repo, placed.disk, missing), missing))
                if missing:
                    self.notes.append(f"{_told(placed.disk, missing)}: lost, and zeroes in what was restored")
        return jobs

    def _lost(self, disk: Disk, missing: Blocks) -> errors.Damaged:
        extents = list(blocks.to_extents(missing, disk.block_size, disk.size))
        return errors.Damaged(
            f"{_told(disk, missing)} were lost in the repository. To restore the disk with zeroes there, "
            "use --lost-as-zeroes.",
            disk=disk.name,
            start=extents[0].start,
            length=extents[0].length,
            lost=[[extent.start, extent.length] for extent in extents],
        )

    def read_files(self, attachments: Iterable[Attachment], directory: Path) -> dict[Path, bytes]:
        """Those to write. A killed restore has written them first, as a rule: the same again is as good."""
        contents = {}
        for attached in attachments:
            with self._noting_damage():
                content = attachment.read_attachment(self._repo, attached)
                path = directory / order.file_of(attached, content)
                if partfile.holds(path, content):
                    self.files.append(path)
                    self.notes.append(f"{path} was there already, with the same content")
                else:
                    contents[path] = content
        return contents

    def write_file(self, part: PartFile, content: bytes) -> None:
        part.write(0, [content])
        part.finish()
        self.files.append(part.place)

    def write_disk(self, job: _Job, target: Target, progress: image.Progress) -> None:
        disk = job.placed.disk
        with self._noting_damage():
            image.write(self._repo, disk, job.allocated, target, progress, job.lost)
            target.finish()
            kind = "device" if isinstance(target, BlockDevice) else job.placed.format
            self.disks.append(RestoredDisk(disk.name, target.place, kind, disk.size, job.data_bytes))

    @contextlib.contextmanager
    def _noting_damage(self) -> Iterator[None]:
        try:
            yield
        except errors.Damaged as error:
            self._damage.append(error)

    def raise_damage(self) -> None:
        if not self._damage:
            return
        whole = [str(path) for path in (*(disk.path for disk in self.disks), *self.files)]
        raise errors.Damaged(
            f"{' '.join(map(str, self._damage))} Whole, and restored: {', '.join(whole) or 'nothing'}. "
            "What is damaged may be whole in another snapshot: 'headstart verify' tells.",
            **self._damage[0].facts,
            restored=whole,
        )


def _told(disk: Disk, missing: Blocks) -> str:
    extents = list(blocks.to_extents(missing, disk.block_size, disk.size))
    ranges = ", ".join(f"{extent.start} to {extent.end - 1}" for extent in extents[:_RANGES])
    more = f" and {len(extents) - _RANGES} more ranges" if len(extents) > _RANGES else ""
    return f"Disk {disk.name}, bytes {ranges}{more}"


def _target(job: _Job) -> Target:
    placed, disk = job.placed, job.placed.disk
    if is_device(placed.place):
        return BlockDevice(placed.place, disk.size)
    if placed.format == "raw":
        return RawFile(placed.place, disk.size)
    return Qcow2File(placed.place, disk.size, job.allocated, disk.block_size)


def _make(directory: Path, places: Iterable[Path]) -> None:
    """Make the directory if any of the places is in it."""
    if all(place.parent != directory for place in places):
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.TargetRefused(
            f"The directory {directory} cannot be made: {error.strerror}. Name another one.", target=str(directory)
        ) from error
