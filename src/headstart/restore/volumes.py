"""One volume of a snapshot, into a raw file or onto a block device.

::

    volume    |---- segment ----|---- segment ----|
    disks      vda at 1 MiB      vdb at 8 MiB            each read as the snapshot has it
    target    |-------------------------------------|    zeroes stay holes
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import errors, extents, plain, units
from headstart.extents import Extent
from headstart.repository import Repository
from headstart.repository.manifest import Excluded, Manifest
from headstart.restore import image, order, partfile, space
from headstart.restore.device import BlockDevice, is_device
from headstart.restore.files.contents import Contents
from headstart.restore.raw import RawFile
from headstart.restore.restoration import Report, RestoredDisk
from headstart.restore.serving.view import DiskView
from headstart.restore.target import Target
from headstart.volumes import volume
from headstart.volumes.volume import Volume

#: Bytes read and written in one go.
_PIECE = 2 * units.MIB


@dataclass(frozen=True, slots=True)
class Wish:
    """A volume to restore, as ``find`` takes it, and the file or block device (None: a file in the directory)."""

    volume: str
    target: Path | None = None


#: ``UUID=...`` and the like have a sign of their own before that of the target.
_WISH = re.compile(r"((?:(?:PART)?(?:UUID|LABEL)=)?[^=]+)(?:=(.+))?")


def parse_wish(text: str) -> Wish:
    """``VOLUME`` or ``VOLUME=TARGET``; raises ``Usage``."""
    found = _WISH.fullmatch(text)
    if found is None:
        raise errors.Usage(f"A volume to restore is VOLUME or VOLUME=TARGET, not {text!r}.")
    return Wish(found[1], Path(found[2]) if found[2] else None)


def restore(
    repo: Repository, manifest: Manifest, directory: Path, wishes: tuple[Wish, ...], progress: image.Progress
) -> Report:
    """Raises ``NotFound`` for what the snapshot has not, ``Unsupported`` for a volume of which it is not known where it
    lies, ``TargetRefused``, ``NoSpace``, ``Damaged``. Each volume is there as a whole, or not at all."""
    begun = time.monotonic()
    with Contents(repo, manifest) as contents:
        chosen = [(find(contents, wish.volume), wish.target) for wish in wishes]
        places = [target or directory / f"{order.file_name(each.name)}.raw" for each, target in chosen]
        if len(set(places)) < len(places):
            raise errors.Usage("Two volumes are to be restored to the same place: name each once.")
        if any(target is None for _, target in chosen):
            directory.mkdir(parents=True, exist_ok=True)
        done = [_write(contents.views, each, place, progress) for (each, _), place in zip(chosen, places, strict=True)]
        notes = tuple(map(plain.joined, contents.notes))
        return Report(manifest.id, manifest.vm, tuple(done), (), time.monotonic() - begun, notes)


def find(contents: Contents, named: str) -> Volume:
    """By a mount point, by its name, by ``LABEL=`` or ``UUID=``."""
    if named.startswith("/") and not named.startswith("/dev/"):
        found = _mounted_at(contents, named)
    else:
        found = contents.volume(named)
    if left_out := _left_out(contents.manifest, found):
        raise _without(contents.manifest, left_out)
    if found.segments is None:
        raise errors.Unsupported(
            f"Volume {plain.line(found.name)} cannot be restored by itself: {plain.line(found.problem)}. Restore its "
            "disks.",
            volume=found.name,
        )
    return found


def _mounted_at(contents: Contents, point: str) -> Volume:
    wanted = point.rstrip("/") or "/"
    seen = contents.seen()
    found = [each.volume for each in seen if each.mounted and (each.mounted.rstrip("/") or "/") == wanted]
    if found:
        return found[0]
    excluded = (each for disk in contents.manifest.disks for each in disk.excluded)
    if left_out := next((each for each in excluded if wanted in each.mounted), None):
        raise _without(contents.manifest, left_out)
    known = ", ".join(plain.line(each.mounted) for each in seen if each.mounted) or "none are known"
    raise errors.NotFound(
        f"No volume of snapshot {contents.manifest.id} is known to be mounted at {plain.line(point)}. Mount points: "
        f"{known}. Name a volume as 'headstart ls {contents.manifest.id}:' does.",
        volume=point,
    )


def _left_out(manifest: Manifest, found: Volume) -> Excluded | None:
    excluded = {disk.name: disk.excluded for disk in manifest.disks}
    for disk, extent in volume.covers(found):
        for each in excluded.get(disk, ()):
            if any(its.start < extent.end and extent.start < its.end for its in each.extents):
                return each
    return None


def _without(manifest: Manifest, left_out: Excluded) -> errors.NotFound:
    why = f"by {plain.line(left_out.pattern)}" if left_out.pattern else "because only others were to be backed up"
    return errors.NotFound(
        f"Volume {plain.line(left_out.volume)} is not in snapshot {manifest.id}: it was left out {why}.",
        volume=left_out.volume,
    )


def _write(views: Mapping[str, DiskView], found: Volume, place: Path, progress: image.Progress) -> RestoredDisk:
    device = is_device(place)
    if not device:
        partfile.refuse_existing(place)
    pieces = list(_pieces(views, found))
    total, done = sum(piece.length for piece in pieces), 0
    with _target(place, found.size, device=device) as target:
        if not device:
            space.check([(place.parent, total)])
        for hole in extents.gaps(pieces, target.size):
            target.zero(hole)
        source = volume.ReadOnlyBytes(found, lambda disk, start, length: views[disk].read(start, length))
        for piece in pieces:
            for part in extents.split(piece, _PIECE):
                target.write(part.start, [source.read(part.start, part.length)])
                done += part.length
                progress(found.name, done, total)
        target.finish()
    return RestoredDisk(found.name, place, "device" if device else "raw", found.size, total)


def _target(place: Path, size: int, *, device: bool) -> Target:
    return BlockDevice(place, size) if device else RawFile(place, size)


def _pieces(views: Mapping[str, DiskView], found: Volume) -> list[Extent]:
    """What of the volume may be something else than zeroes; merged, ascending."""
    return extents.merge(_data(views, found))


def _data(views: Mapping[str, DiskView], found: Volume) -> Iterator[Extent]:
    for segment in found.segments or ():
        if segment.chunk:
            yield Extent(segment.start, segment.length)  # whole: it would be a piece for each of its stripes
            continue
        stripe = segment.stripes[0]
        for piece in views[stripe.disk].pieces(stripe.start, segment.length):
            if piece.data:
                yield Extent(segment.start + piece.extent.start - stripe.start, piece.extent.length)
