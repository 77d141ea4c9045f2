"""Which overlays of ours stand on the disks of a domain, and whether they may.

One point in time is to hold for all disks, and overlays make another one than backup jobs do: so either overlays record
all disks of a domain, also those that could have checkpoints, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.hypervisor import images, overlays, recording
from headstart.hypervisor.inventory import Disk, Recorder
from headstart.hypervisor.libvirt.inventory import Attachment, Look
from headstart.hypervisor.overlays import Place
from headstart.hypervisor.recording import IN_IOTHREAD, Recording, Stack

TRANSIENT = "the domain is not defined: it would be started from the image again, without what is in an overlay"
CHECKPOINTS = "it has checkpoints of another tool, whose bitmaps would record nothing below an overlay"
SNAPSHOTS = "the domain has snapshots (virsh snapshot-list), which name its images as they are now"
BURIED = "somebody's overlay stands on one of ours: it can be used again when that is gone"
THEIRS = "it stands on an overlay of another installation of Headstart"
SHARED = "other VMs may write to it"
NO_FILE = "its image {path} is no file or device of this host"
UNDEFINED = "the domain would be started from another image of it than it runs on: {path}"
NOT_YET = "no overlay of ours is on it (--track overlay puts one there)"
OTHER_DISK = "disk {disk} cannot have one ({reason}), and all disks have to be recorded in the same way"


@dataclass(frozen=True, slots=True)
class Covered:
    """``disk`` with as many overlays as are ours from the top; ``obstacle``: why it cannot be recorded by them."""

    disk: Disk
    place: Place
    form: str
    paths: tuple[Path, ...]
    obstacle: str


def covered(disk: Disk, installation: str, folder: Path) -> Covered:
    """What stands on the image. ``folder``: for overlays on devices."""
    count = 0
    while count < len(disk.layers) - 1 and _is_ours(disk.layers[count].path, installation):
        count += 1
    base = disk.layers[count]
    obstacle = ""
    if any(_is_ours(layer.path, installation) for layer in disk.layers[count:]):
        obstacle = BURIED
    elif any(overlays.is_any(Path(layer.path)) for layer in disk.layers[count:]):
        obstacle = THEIRS
    elif not Path(base.path).is_absolute() or not Path(base.path).exists():
        obstacle = NO_FILE.format(path=base.path)
    elif disk.overridden:
        obstacle = disk.overridden
    place = overlays.place_of(Path(base.path), folder, installation)
    paths = tuple(Path(layer.path) for layer in reversed(disk.layers[:count]))
    # We alone write to the image below, which the place's seal tells: its times are no news.
    image = images.image_file(Path(base.path), base.driver, active=True)
    layers = (*disk.layers[:count], image, *disk.layers[count + 1 :])
    form = base.driver if count else disk.format
    return Covered(replace(disk, layers=layers, overlays=count, format=form), place, form, paths, obstacle)


def _is_ours(path: str, installation: str) -> bool:
    return overlays.is_ours(path, installation)


@dataclass(frozen=True, slots=True)
class Conditions:
    """``obstacle``: why the domain can have no overlays; ``defined``: what it would be started from, by disk."""

    obstacle: str
    defined: Mapping[str, Path]


def find(seen: Look, recording: Recording, ask: Callable[[], Conditions]) -> Look:
    """``seen`` with a ``Stack`` for each disk, where overlays record them. ``ask``: where somebody wants that."""
    found = [covered(each.disk, recording.installation, recording.folder) for each in seen.attachments]
    standing = any(each.paths for each in found)
    if not recording.wanted or not (recording.prepared or standing):
        return replace(seen, attachments=tuple(map(_unrecorded, seen.attachments, found)))
    conditions = ask()
    reasons = [
        conditions.obstacle or _obstacle(attachment, each, conditions.defined, prepared=recording.prepared)
        for attachment, each in zip(seen.attachments, found, strict=True)
    ]
    if any(reasons):
        told = _told([each.disk.name for each in found], reasons)
        attachments = map(_unrecorded, seen.attachments, found, told)
    else:
        attachments = map(_recorded, seen.attachments, found)
    return replace(seen, attachments=tuple(attachments))


def _obstacle(attachment: Attachment, found: Covered, defined: Mapping[str, Path], *, prepared: bool) -> str:
    if found.obstacle:
        return found.obstacle
    then = defined.get(found.disk.name)
    if then != Path(found.disk.layers[0].path):
        return UNDEFINED.format(path=then or "none")
    if attachment.unsafe:
        return IN_IOTHREAD
    if attachment.shared:
        return SHARED
    return "" if found.paths or prepared else NOT_YET


def _told(names: Sequence[str], reasons: Sequence[str]) -> list[str]:
    first = next(number for number, reason in enumerate(reasons) if reason)
    other = OTHER_DISK.format(disk=names[first], reason=reasons[first])
    return [reason or other for reason in reasons]


def _unrecorded(attachment: Attachment, found: Covered, obstacle: str = "") -> Attachment:
    if not found.paths:
        return replace(attachment, disk=replace(attachment.disk, unlayered=obstacle))
    return replace(attachment, disk=replace(found.disk, unlayered=obstacle))


def _recorded(attachment: Attachment, found: Covered) -> Attachment:
    segments = found.place.named(found.paths)
    if recording.doubt(found.place, found.paths):
        segments = recording.unbelieved(segments)
    disk = replace(found.disk, recorder=Recorder.OVERLAY, persistent=True, untracked="", unreadable="")
    return replace(attachment, disk=disk, stack=Stack(found.place, found.form, segments))
