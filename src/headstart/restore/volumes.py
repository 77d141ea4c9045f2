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
from headstart.restore import image, order, partfile, restoration, space
from headstart.restore.device import BlockDevice, is_device, refuse_misspelt
from headstart.restore.raw import RawFile
from headstart.restore.restoration import Report, RestoredDisk
from headstart.restore.serving.view import DiskView
from headstart.restore.target import Target
from headstart.volumes import fstab, selection, volume
from headstart.volumes.looker import Looker
from headstart.volumes.selection import Seen
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
    views = {disk.name: DiskView(repo, disk) for disk in manifest.disks}
    seen = _look(views)
    chosen = [(find(manifest, seen, wish.volume), wish.target) for wish in wishes]
    places = [target or directory / f"{order.file_name(each.name)}.raw" for each, target in chosen]
    if len(set(places)) < len(places):
        raise errors.Usage("Two volumes are to be restored to the same place: name each once.")
    for place in places:
        refuse_misspelt(place)
    if any(target is None for _, target in chosen):
        restoration.make(directory)
    done = [_write(views, each, place, progress) for (each, _), place in zip(chosen, places, strict=True)]
    notes = tuple(dict.fromkeys(f"{plain.line(each.name)}: {each.doubt}" for each, _ in chosen if each.doubt))
    return Report(manifest.id, manifest.vm, tuple(done), (), time.monotonic() - begun, notes)


def _look(views: Mapping[str, DiskView]) -> Seen:
    with Looker({name: view.size for name, view in views.items()}) as looker:
        return looker.look(lambda disk, start, length: views[disk].read(start, length))


def find(manifest: Manifest, seen: Seen, named: str) -> Volume:
    """By a mount point, its name, ``label:`` as in a policy, or as fstab names it. Raises ``NotFound``, ``Usage`` where
    several are called so, ``Unsupported`` where it is not known where it lies."""
    found = [each for each in seen.volumes if selection.names(named, each, seen)]
    found = found or fstab.volumes_of(named, seen.volumes)
    if not found:
        raise _unknown(manifest, seen, named)
    if len(found) > 1:
        which = ", ".join(plain.line(each.name) for each in found)
        raise errors.Usage(f"Several volumes are called {named!r}: {which}. Name one of them.")
    if left_out := _left_out(manifest, found[0]):
        raise _without(manifest, left_out)
    if found[0].segments is None:
        raise errors.Unsupported(
            f"Volume {plain.line(found[0].name)} cannot be restored by itself: {plain.line(found[0].problem)}. "
            "Restore its disks.",
            volume=found[0].name,
        )
    return found[0]


def _unknown(manifest: Manifest, seen: Seen, named: str) -> errors.NotFound:
    excluded = (each for disk in manifest.disks for each in disk.excluded)
    point = named.rstrip("/") or named
    left_out = next((each for each in excluded if named == each.volume or point in each.mounted), None)
    if left_out is not None:
        return _without(manifest, left_out)
    told = [
        f"{plain.line(each.name)} ({', '.join(map(plain.line, seen.mounted(each))) or plain.line(each.content) or '?'})"
        for each in seen.volumes
    ]
    reason = seen.problem or (seen.mounts.problem if named.startswith("/") else "")
    return errors.NotFound(
        f"Snapshot {manifest.id} has no volume {named!r}. It has: {', '.join(told[:50]) or 'none that is known'}."
        + (f" ({plain.joined(reason)})" if reason else ""),
        volume=named,
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
