"""Bugs of the kind that loses blocks, to be switched on one at a time: who does not find them proves nothing.

The audit looks at nothing meanwhile, except where the bug is its own: marks, journal and repository alone have to be
right.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

from headstart import errors
from headstart.backup import plan, records
from headstart.backup.audit import Audited, Auditing
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Bitmap, PointInTime, Remove
from headstart.hypervisor.inventory import Disk
from headstart.hypervisor.memory.connection import Connection
from headstart.hypervisor.memory.image import Drive, Image, Record
from headstart.hypervisor.memory.machine import MemoryMachine
from headstart.hypervisor.memory.point import MemoryPoint
from headstart.repository import objects
from headstart.repository.collect import _Collection
from headstart.repository.holdings import Holdings
from headstart.repository.repo import Repository
from headstart.repository.writer import Writer
from headstart.state.journal import Journal
from headstart.state.values import Facts
from headstart.tracking.mark import Marks
from headstart.tracking.tracker import Tracker

Plant = Callable[[], Any]


def stale_blocks_kept() -> Any:
    """A block read before the freeze counts, although it was written again."""
    right = plan.residue

    def planted(
        recorded: Blocks, entire: Blocks, draft: Blocks, stale: Blocks, protected: Blocks | None
    ) -> plan.Residue:
        return right(recorded, entire, draft, Blocks(), protected)

    return mock.patch.object(plan, "residue", planted)


def stale_answers_accepted() -> Any:
    """What a reader of an old round reports counts for the new one."""
    right = Journal.copied

    def planted(self: Journal, vm: str, round_id: str, *rest: Any) -> None:
        for tracked in list(self.tracked(vm).values())[:1]:
            right(self, vm, tracked.round, *rest)

    return mock.patch.object(Journal, "copied", planted)


def gap_between_bitmaps() -> Any:
    """The new marks begin only after the old ones have ended."""
    right = Tracker.rotate

    def planted(self: Tracker, start: Marks, end: Marks) -> None:
        right(self, (), end)
        right(self, start, ())

    return mock.patch.object(Tracker, "rotate", planted)


def base_removed_before_publishing() -> Any:
    """The old base bitmaps go before the new snapshot is published."""
    right = MemoryPoint.recorded

    def planted(self: MemoryPoint) -> Any:
        found = right(self)
        bases = [(disk, name) for disk, each in found.items() for name in each if "-base-" in name]
        self._connection.apply([Remove(*base) for base in bases])
        return found

    return mock.patch.object(MemoryPoint, "recorded", planted)


def draft_kept_over_rollback() -> Any:
    """A disk whose marks are not the expected ones loses its base, and not its part of the draft."""
    right = Journal.begin_round

    def planted(self: Journal, vm: str, draft: Any, disks: Any, dropped: Any) -> None:
        right(self, vm, draft, disks, ())

    return mock.patch.object(Journal, "begin_round", planted)


def undurable_pack_counted() -> Any:
    """A pack that the store did not take counts as stored."""
    right = objects.put

    def planted(store: Any, key: str, data: Any) -> None:
        with contextlib.suppress(errors.StoreFailed):
            right(store, key, data)

    # The module is looked at by all who put objects: only the writer's are packs.
    return _unseen(mock.patch.object(Writer, "_upload", _with(Writer._upload, objects, "put", planted)))


@contextlib.contextmanager
def _unseen(bug: Any) -> Iterator[None]:
    """And nobody looks whether the packs are there: that would find it before anything is published."""

    def gone(self: Repository, packs: Iterable[str]) -> set[str]:
        return set(packs) - {each.hex() for each in self.index.packs()}

    with (
        bug,
        mock.patch.object(Repository, "drop_lost", lambda _self: set()),
        mock.patch.object(Repository, "gone", gone),
    ):
        yield


def _with(function: Callable[..., Any], owner: Any, name: str, planted: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which sees something else in ``owner``."""

    def changed(*arguments: Any) -> Any:
        with mock.patch.object(owner, name, planted):
            return function(*arguments)

    return changed


def gc_against_sleeping_draft() -> Any:
    """A collector of garbage sweeps what a draft refers to, without giving the draft up first."""
    return _unseen(mock.patch.object(_Collection, "_living_drafts", lambda _self: {}))


def claims_forgotten() -> Any:
    """A backup does not say what it is about to be published upon."""
    return mock.patch.object(records, "claim", lambda _context, _vm, _packs: None)


def lost_copies_kept() -> Any:
    """Of two copies of a chunk a collector of garbage keeps the one that the store has lost."""
    right = Holdings.drop_lost

    def planted(self: Holdings, *, but_doomed: bool = False) -> Any:
        return set() if but_doomed else right(self)

    return mock.patch.object(Holdings, "drop_lost", planted)


def bitmap_below_overlay_believed() -> Any:
    """A bitmap counts wherever it stands in the chain: also where no write comes any longer."""

    def looked_at(self: MemoryMachine, drive: Drive, image: Image, name: str, record: Record) -> Bitmap:
        return Bitmap(name, record.recording, not record.inconsistent, record.persistent)

    def read(self: Connection, disk: str, name: str) -> Record:
        for _, found, record in self.drive(disk).records():
            if found == name:
                return record
        raise errors.HeadstartError(f"Dirty bitmap '{name}' not found")

    right = plan._changed_disk

    def unchanged(known: Facts, disk: Disk) -> str:
        return right(replace(known, layers=disk.layers), disk)

    @contextlib.contextmanager
    def planted() -> Iterator[None]:
        with (
            mock.patch.object(MemoryMachine, "_bitmap", looked_at),
            mock.patch.object(Connection, "_readable", read),
            mock.patch.object(plan, "_changed_disk", unchanged),
        ):
            yield

    return planted()


def audit_after_trim() -> Any:
    """What is not residue is let go of before the audit has read its sample."""
    right = Auditing.run

    def planted(self: Auditing, point: PointInTime) -> Audited:
        for name, found in self._belief.residues.items():
            point.keep(name, found.residue)
        return right(self, point)

    return mock.patch.object(Auditing, "run", planted)


PLANTS: dict[str, Plant] = {
    "gap-between-bitmaps": gap_between_bitmaps,
    "base-removed-before-publishing": base_removed_before_publishing,
    "draft-kept-over-rollback": draft_kept_over_rollback,
    "stale-answer-accepted": stale_answers_accepted,
    "stale-block-kept": stale_blocks_kept,
    "undurable-pack-counted": undurable_pack_counted,
    "gc-against-sleeping-draft": gc_against_sleeping_draft,
    "claims-forgotten": claims_forgotten,
    "lost-copies-kept": lost_copies_kept,
    "bitmap-below-overlay-believed": bitmap_below_overlay_believed,
    "audit-after-trim": audit_after_trim,
}


#: Bugs of the audit itself.
AUDITED = ("audit-after-trim",)


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """With this bug, and without what is audited in any case, which may find by chance what it spoils. Empty: none."""
    if not name:
        yield
        return
    blind = mock.patch.object(Auditing, "_with_ends", lambda _self, _name, sample: sample)
    with PLANTS[name](), contextlib.nullcontext() if name in AUDITED else blind:
        yield
