"""What the next backup of a VM is built on: its disks in the snapshots that they follow.

A snapshot may be forgotten while the backup is made: then the records of the draft tell its trees.
"""

from __future__ import annotations

from collections.abc import Iterator

from headstart import errors
from headstart.backup.context import Context
from headstart.blocks import Blocks
from headstart.repository import draft as drafts
from headstart.repository import lost, snapshot
from headstart.repository.lost import Lost
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.root import Root
from headstart.state.values import Tracked


def find(context: Context, snapshot_id: str) -> Manifest | None:
    """A published snapshot; None if it was never published, revoked, or forgotten."""
    try:
        return snapshot.load(context.repository, snapshot_id)
    except (errors.Damaged, errors.NotFound):
        return None


class Bases:
    """Remembers what it has found, so for one run at most."""

    def __init__(self, context: Context, vm: str) -> None:
        self._context = context
        self._vm = vm
        #: Snapshots by id, as far as they were needed.
        self._manifests: dict[str, Manifest] = {}
        #: By snapshot and disk, what a repair found lost of it.
        self._losses: dict[tuple[str, str], Lost] = {}

    def last(self, tracked: Tracked) -> Disk | None:
        """The disk in the snapshot that ``tracked`` follows, whatever is lost of it; None if there is none (any
        longer)."""
        return self._disk(tracked.snapshot, tracked.name) if tracked.snapshot else None

    def last_whole(self, tracked: Tracked) -> Disk | None:
        """The same, and None also where parts of its tree are lost: nothing can be built on it."""
        return self._whole(tracked.snapshot, tracked.name) if tracked.snapshot else None

    def require(self, tracked: Tracked) -> Disk | None:
        """``last_whole`` of what the backup is built on, which its changes apply to and are compared with. None only
        where that is nothing. Raises ``Damaged`` if it cannot be read now: what would be taken for new, or for zeroes
        still, the backup would have from a snapshot that can be read again later."""
        found = self.last_whole(tracked)
        if found is None and tracked.snapshot is not None:
            raise errors.Damaged(
                f"Snapshot {tracked.snapshot}, which the backup of disk {tracked.name} builds on, cannot be read."
                " Nothing was published: back up again.",
                snapshot=tracked.snapshot,
            )
        return found

    def lost(self, tracked: Tracked) -> Blocks:
        """What cannot be read any longer of the disk in the last snapshot: the next one must not take it over."""
        found = self.last_whole(tracked)
        if found is None or tracked.snapshot is None:
            return Blocks()
        return self._lost(tracked.snapshot, found).blocks

    def newest(self, disk: str) -> str | None:
        """The newest snapshot of a VM of this name that has the disk: content to recognise, nothing to trust."""
        everything = snapshot.all_manifests(self._context.repository).manifests
        manifests = [each for each in everything if each.vm == self._vm]
        self._manifests.update({each.id: each for each in manifests})
        found = [each for each in manifests if self._whole(each.id, disk) is not None]
        return max(found, key=lambda manifest: manifest.created).id if found else None

    def _whole(self, snapshot_id: str, disk: str) -> Disk | None:
        found = self._disk(snapshot_id, disk)
        return None if found is None or self._lost(snapshot_id, found).nodes else found

    def _disk(self, snapshot_id: str, disk: str) -> Disk | None:
        manifest = self._manifests.get(snapshot_id) or find(self._context, snapshot_id)
        if manifest is None:
            return self._recorded(snapshot_id, disk)
        self._manifests[snapshot_id] = manifest
        return next((each for each in manifest.disks if each.name == disk), None)

    def _lost(self, snapshot_id: str, disk: Disk) -> Lost:
        place = (snapshot_id, disk.name)
        if place not in self._losses:
            self._losses[place] = lost.of_disk(self._context.repository, disk)
        return self._losses[place]

    def _recorded(self, snapshot_id: str, disk: str) -> Disk | None:
        """What the draft keeps of a snapshot that was forgotten while it was made."""
        for root in self._recorded_roots():
            if (root.snapshot, root.disk) == (snapshot_id, disk):
                return Disk(disk, root.size, "raw", root.root, self._context.repository.block_size)
        return None

    def _recorded_roots(self) -> Iterator[Root]:
        context = self._context
        draft = context.journal.draft(self._vm)
        if draft is None or draft.repository != context.repository.id:
            return
        for number in range(draft.records):
            try:
                yield from drafts.read(context.repository, drafts.key_of(draft.id, number)).roots
            except errors.Damaged:
                continue
