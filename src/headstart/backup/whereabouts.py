"""In which volumes of the guest's changes are: what the point in time said, or what is stored says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headstart import blocks, errors
from headstart.backup import looking
from headstart.backup.context import Context
from headstart.backup.report import VolumeReport
from headstart.blocks import Blocks
from headstart.repository.manifest import Manifest
from headstart.state.journal import Journal
from headstart.state.noted import Noted
from headstart.volumes import volume
from headstart.volumes.filesystem import Malformed
from headstart.volumes.mounts import Mounts
from headstart.volumes.selection import CONTAINER, Seen


@dataclass(frozen=True, slots=True)
class Change:
    """Blocks of one disk of ``size`` bytes: what changed, and what of it was read at the point in time (or is still to
    be read); ``excluded`` is left out."""

    size: int
    changed: Blocks
    residue: Blocks
    excluded: Blocks


def look_at_stored(context: Context, manifest: Manifest) -> Seen:
    """After a backup, of which nothing fails because of it."""
    disks = {disk.name: disk for disk in manifest.disks}
    try:
        with context.looker({name: disk.size for name, disk in disks.items()}) as looker:
            return looker.look(looking.stored(context.repository, disks))
    except errors.HeadstartError as error:
        return Seen(problem=str(error))


def tell(seen: Seen, changes: Mapping[str, Change], block_size: int) -> tuple[VolumeReport, ...]:
    """Of each volume that holds something by itself. A block between two volumes counts for both."""
    return tuple(_tell(seen, changes, block_size))


def _tell(seen: Seen, changes: Mapping[str, Change], block_size: int) -> Iterator[VolumeReport]:
    for each in seen.volumes:
        if each.segments is None or each.content == CONTAINER:
            continue
        changed = residue = excluded = 0
        for disk, extent in volume.covers(each):
            its = blocks.of_extents([extent], block_size)
            if (found := changes.get(disk)) is not None:
                changed += blocks.total_bytes(found.changed & its, block_size, found.size)
                residue += blocks.total_bytes(found.residue & its, block_size, found.size)
                excluded += blocks.total_bytes(found.excluded & its, block_size, found.size)
        label = each.label or each.partition_label
        yield VolumeReport(each.name, each.content, label, seen.mounted(each), each.size, changed, residue, excluded)


def remember(journal: Journal, vm: str, seen: Seen) -> None:
    """For ``recall``, which asks nobody."""
    volumes = [dataclasses.astuple(each) for each in seen.volumes]
    Noted(journal).put_volumes(vm, {"volumes": volumes, "points": dict(seen.mounts.points)})


def recall(journal: Journal, vm: str) -> Seen:
    """What lay on the disks at the last backup, as far as it still fits them."""
    told: Any = Noted(journal).volumes(vm) or {"volumes": [], "points": {}}
    sizes = {name: tracked.facts.size for name, tracked in journal.tracked(vm).items()}
    found = []
    for each in told["volumes"]:
        try:
            found.append(volume.of_told(each, sizes))
        except Malformed:
            continue  # its disk is gone, or was shrunk
    points = {name: tuple(each) for name, each in told["points"].items()}
    return Seen(tuple(found), Mounts(points))
