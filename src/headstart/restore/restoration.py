"""A snapshot, or some of its disks, into a directory or onto devices.

First every place is claimed, so that nothing is written if one of them is refused. Each disk gets its name as soon as
it is whole. Damage does not keep the other disks from being restored: it is raised at the end.

After an interruption the same order goes on: what is there already is recognised by the ids of its chunks, be it in a
file that was in the making, on a device, or in a file that has its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart import blocks, errors, plain, units
from headstart.blocks import Blocks
from headstart.repository import Repository, attachment, lost
from headstart.repository.manifest import Attachment, Disk, Manifest
from headstart.restore import claim, domainfile, image, order, partfile, present, space, whole
from headstart.restore.device import BlockDevice, is_device, refuse_misspelt
from headstart.restore.domainfile import Restored
from headstart.restore.order import Order, Placed
from headstart.restore.partfile import PartFile
from headstart.restore.qcow2 import Qcow2File
from headstart.restore.qemufile import QemuFile
from headstart.restore.raw import RawFile
from headstart.restore.target import Target

#: What progress calls all disks of one restore together.
ALL = "all disks"
#: Ranges that a message names.
_RANGES = 10
#: Of ``st_blocks`` in stat(2).
_STAT_BLOCK = 512


@dataclass(frozen=True, slots=True)
class RestoredDisk:
    """``data_bytes`` are in place, the rest of ``size`` is zeroes; ``kept_bytes`` of them were there before. ``format``
    is that of the file, or device."""

    name: str
    path: Path
    format: str
    size: int
    data_bytes: int
    kept_bytes: int = 0


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
    snapshot: str
    placed: Placed
    allocated: Blocks
    lost: Blocks

    @property
    def data_bytes(self) -> int:
        return self.bytes_of(self.allocated)

    def bytes_of(self, found: Blocks) -> int:
        return blocks.total_bytes(found, self.placed.disk.block_size, self.placed.disk.size)

    @property
    def purpose(self) -> str:
        """Tells whether a file in the making is of just this job."""
        disk = self.placed.disk
        told = (self.snapshot, disk.name, disk.size, disk.block_size, (disk.root or b"").hex(), self.placed.format)
        content = f"{told}".encode() + self.allocated.serialize()
        return hashlib.blake2b(content, digest_size=claim.PURPOSE_LENGTH // 2).hexdigest()


def restore(repo: Repository, manifest: Manifest, ordered: Order, progress: image.Progress) -> Report:
    """Raises ``NotFound`` for a disk that the snapshot has not, ``TargetRefused`` and ``NoSpace`` (before anything is
    written where that can be known), ``Damaged`` after all that is whole was restored."""
    begun = time.monotonic()
    run = _Run(repo)
    run.tell_excluded(manifest, ordered)
    places = order.placed(manifest, ordered)
    for placed in places:
        refuse_misspelt(placed.place)
        if not is_device(placed.place) and not whole.may_be(placed):
            partfile.refuse_existing(placed.place)
    jobs = run.survey(manifest.id, places, zeroes=ordered.lost_as_zeroes)
    jobs = [job for job in jobs if not run.is_there(job, progress)]
    files: dict[Path, bytes] = {}
    if not ordered.wishes:
        files = run.read_files(manifest.attachments, ordered.directory)
        files |= run.domain(manifest.vm, places, ordered.directory)
    with contextlib.ExitStack() as stack:
        _make(ordered.directory, (*(placed.place for placed in places), *files))
        parts = [(stack.enter_context(PartFile(path, len(content))), content) for path, content in files.items()]
        targets = [stack.enter_context(_target(job)) for job in jobs]
        space.check(_needs(jobs, targets))
        claimed: list[PartFile | Target] = [*(part for part, _ in parts), *targets]
        run.notes += [note for each in claimed for note in each.notes]
        for part, content in parts:
            run.write_file(part, content)
        kept = [run.find_kept(job, target, progress) for job, target in zip(jobs, targets, strict=True)]
        course = _Course(progress, jobs, kept)
        for job, target, there in zip(jobs, targets, kept, strict=True):
            run.write_disk(job, target, course.report, there)
    run.raise_damage()
    seconds = time.monotonic() - begun
    return Report(manifest.id, manifest.vm, tuple(run.disks), tuple(run.files), seconds, tuple(run.notes))


class _Run:
    """What has been restored, and what was found damaged."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._damage: list[errors.Damaged] = []
        #: By kind: where it is restored to, and its content.
        self._attached: dict[str, tuple[Path, bytes]] = {}
        self.disks: list[RestoredDisk] = []
        self.files: list[Path] = []
        self.notes: list[str] = []

    def tell_excluded(self, manifest: Manifest, ordered: Order) -> None:
        """What the backup was made without."""
        wanted = {wish.disk for wish in ordered.wishes}
        for disk in manifest.disks:
            if not wanted or disk.name in wanted:
                self.notes += [
                    f"volume {plain.line(each.volume)} of disk {plain.line(disk.name)} is zeroes: the backup was made "
                    "without it"
                    for each in disk.excluded
                ]

    def survey(self, snapshot: str, places: Iterable[Placed], *, zeroes: bool) -> list[_Job]:
        """``zeroes``: disks of which something is lost are restored without it."""
        jobs = []
        for placed in places:
            with self._noting_damage():
                missing = lost.unreadable(self._repo, placed.disk)
                if missing and not zeroes:
                    raise self._lost(placed.disk, missing)
                jobs.append(_Job(snapshot, placed, image.survey(self._repo, placed.disk, missing), missing))
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

    def is_there(self, job: _Job, progress: image.Progress) -> bool:
        """Whether an interrupted restore came to its end with this disk. Raises ``TargetRefused`` for another file."""
        place, disk = job.placed.place, job.placed.disk
        if is_device(place):
            return False
        if not os.path.lexists(place):
            part = replace(job.placed, place=partfile.part_of(place))
            if not (whole.may_be(part) and self._is_whole(job, part) and partfile.finish_whole(place)):
                return False
        elif not self._is_whole(job, job.placed):
            partfile.refuse_existing(place)
        else:
            partfile.drop_second_name(place)
        progress(disk.name, job.data_bytes, job.data_bytes)
        self.notes.append(f"{place} was there already, with the same content")
        self._note_disk(job, place, job.placed.format, job.data_bytes)
        return True

    def _is_whole(self, job: _Job, placed: Placed) -> bool:
        chunks = image.chunks(self._repo, placed.disk, job.lost)
        return whole.is_whole(self._repo, placed, job.allocated, chunks)

    def _note_disk(self, job: _Job, place: Path, kind: str, kept: int) -> None:
        disk = job.placed.disk
        self.disks.append(RestoredDisk(disk.name, place, kind, disk.size, job.data_bytes, kept))

    def read_files(self, attachments: Iterable[Attachment], directory: Path) -> dict[Path, bytes]:
        """Those to write. A killed restore has written them first, as a rule: the same again is as good."""
        contents: dict[Path, bytes] = {}
        for attached in attachments:
            with self._noting_damage():
                content = attachment.read_attachment(self._repo, attached)
                path = directory / order.file_of(attached, content)
                self._attached[attached.kind] = (path, content)
                contents |= self._lacking(path, content)
        return contents

    def _lacking(self, path: Path, content: bytes) -> dict[Path, bytes]:
        if not partfile.holds(path, content):
            return {path: content}
        self.files.append(path)
        self.notes.append(f"{path} was there already, with the same content")
        return {}

    def domain(self, vm: str, places: Sequence[Placed], directory: Path) -> dict[Path, bytes]:
        """What ``virsh define`` takes to start the VM as it is restored, if the backup has its definition."""
        _, definition = self._attached.get("definition", (None, b""))
        formats = {each.disk.name: "device" if is_device(each.place) else each.format for each in places}
        unknown = domainfile.unknown_formats(formats)
        if not definition:
            return {}
        if unknown:
            self.notes.append(f"there is no {order.DOMAIN}: libvirt cannot start {formats[unknown[0]]}")
            return {}
        variables = self._attached.get("uefi-variables", (None, b""))[0]
        disks = [
            Restored(each.disk, each.place.absolute(), None if is_device(each.place) else each.format)
            for each in places
        ]
        text = definition.decode(errors="replace")
        made = domainfile.derive(vm, text, disks, variables.absolute() if variables else None)
        if made is None:
            self.notes.append(f"there is no {order.DOMAIN}: the definition in the backup is none of this VM")
            return {}
        self.notes += made.notes
        return self._lacking(directory / order.DOMAIN, made.text.encode())

    def write_file(self, part: PartFile, content: bytes) -> None:
        part.write(0, [content])
        part.finish()
        self.files.append(part.place)

    def write_disk(self, job: _Job, target: Target, progress: image.Progress, kept: Blocks) -> None:
        disk = job.placed.disk
        with self._noting_damage():
            image.write(self._repo, disk, job.allocated, target, progress, job.lost, kept)
            target.finish()
            kind = "device" if isinstance(target, BlockDevice) else job.placed.format
            self._note_disk(job, target.place, kind, job.bytes_of(kept))

    def find_kept(self, job: _Job, target: Target, progress: image.Progress) -> Blocks:
        """What of the disk is there already."""
        if target.before is None:
            return Blocks()
        disk, done = job.placed.disk, 0

        def looked(length: int) -> None:
            nonlocal done
            done += length
            progress(f"{disk.name} (what is there)", done, job.data_bytes)

        kept = present.find(self._repo, disk, image.chunks(self._repo, disk, job.lost), target.before, looked)
        if kept:
            told = units.format_bytes(job.bytes_of(kept))
            self.notes.append(f"{target.place}: {told} were there already, and were not written again")
        return kept

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


class _Course:
    """How far all disks together are, beside each of them: what was there already counts for nothing."""

    def __init__(self, progress: image.Progress, jobs: Sequence[_Job], kept: Sequence[Blocks]) -> None:
        self._progress = progress
        self._kept = {job.placed.disk.name: job.bytes_of(each) for job, each in zip(jobs, kept, strict=True)}
        self._done = dict.fromkeys(self._kept, 0)
        self._total = sum(job.data_bytes for job in jobs) - sum(self._kept.values())

    def report(self, what: str, done: int, total: int) -> None:
        self._progress(what, done, total)
        if what in self._done and len(self._done) > 1:
            self._done[what] = done - self._kept[what]
            self._progress(ALL, sum(self._done.values()), self._total)


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
        return RawFile(placed.place, disk.size, job.purpose)
    if placed.format in ("vmdk", "vhdx"):
        return QemuFile(placed.place, disk.size, placed.format)
    return Qcow2File(placed.place, disk.size, job.allocated, disk.block_size, job.purpose)


def _needs(jobs: Iterable[_Job], targets: Iterable[Target]) -> Iterator[tuple[Path, int]]:
    """Folders, and the bytes that each has to take beside what it has already."""
    for job, target in zip(jobs, targets, strict=True):
        if not is_device(job.placed.place):
            held = os.fstat(target.before.descriptor).st_blocks * _STAT_BLOCK if target.before else 0
            yield job.placed.place.parent, max(0, job.data_bytes - held)


def _make(directory: Path, places: Iterable[Path]) -> None:
    """Make the directory if any of the places is in it."""
    if any(place.parent == directory for place in places):
        make(directory)


def make(directory: Path) -> None:
    """Raises ``TargetRefused``."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.TargetRefused(
            f"The directory {directory} cannot be made: {error.strerror}. Name another one.", target=str(directory)
        ) from error
