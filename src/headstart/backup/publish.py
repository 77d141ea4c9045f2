"""After the window: the residue from the spool into the repository, the trees, and last the manifest.

Needs no VM, and may be repeated after any failure: what is stored already is not stored again, and a
manifest that exists already ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headstart import errors
from headstart.backup import bases, losses
from headstart.backup.build import Building
from headstart.backup.context import Context
from headstart.backup.spooling import spool_of
from headstart.blocks import Blocks
from headstart.repository import draft as drafts
from headstart.repository import manifest as manifests
from headstart.repository import snapshot
from headstart.repository.manifest import Manifest
from headstart.state.values import Completion, Point, Tracked


class Superseded(errors.HeadstartError):
    """The completion that waits can never be published: back up again."""


@dataclass(frozen=True, slots=True)
class Published:
    """``stored_bytes``: added to the store by this step, by disk."""

    manifest: Manifest
    completion: Completion
    stored_bytes: Mapping[str, int]


def run(context: Context, vm: str) -> Published:
    """Finish the completion that waits. Raises ``HOPELESS`` if that can never be done."""
    completion = context.journal.completion(vm)
    assert completion is not None, "only called with one waiting"
    base = completion.base_mark
    disks = {name: each for name, each in context.journal.tracked(vm).items() if name in completion.disks}
    found = _published(context, vm, completion)
    building = Building(context, vm, completion, disks)
    if found is None:
        found = snapshot.publish(context.repository, _built(building))
    else:
        snapshot.add_twin(context.repository, found.id)
    off = completion.off
    excluded = {disk.name: manifests.excluded_blocks(disk) for disk in found.disks}
    follows = [
        replace(
            _follows_offline(each, found.id) if off else _follows(each, found.id, base, excluded[each.name]),
            excluded=excluded[each.name],
        )
        for each in disks.values()
    ]
    context.journal.published(
        vm, follows, Point(found.id, found.created), _told(context, found, completion, building.stored_bytes)
    )
    drafts.drop(context.repository, found.id)
    spool_of(context, vm, base).remove()
    return Published(found, completion, building.stored_bytes)


def _told(context: Context, found: Manifest, completion: Completion, stored: Mapping[str, int]) -> dict[str, Any]:
    """What a catalogue says of it, by the names of ``report.BackupReport``; and where it is."""
    return {
        "snapshot": found.id,
        "vm": found.vm,
        "created": found.created,
        "consistency": found.consistency,
        "window_seconds": completion.window_seconds,
        "disks": [
            {
                "size": disk.size,
                "stored_bytes": stored.get(disk.name, 0),
                "changed_bytes": completion.disks[disk.name].changed_bytes,
                "residue_bytes": completion.disks[disk.name].residue_bytes,
            }
            for disk in found.disks
        ],
        "place": repr(context.repository.store),
    }


#: What trying again does not mend. Nothing was published; give the completion up and back up again.
HOPELESS = (errors.Damaged, drafts.Taken, snapshot.Revoked, losses.Lost, Superseded)


def _follows(tracked: Tracked, snapshot_id: str, base: str, excluded: Blocks) -> Tracked:
    """From here on the marks that began with the point in time are the ones to believe. What was left out counts as
    changed from then on: whatever the next backup does not leave out, it reads."""
    return replace(tracked, base=base, snapshot=snapshot_id, entire=excluded, owed=excluded, reason="")


def _follows_offline(tracked: Tracked, snapshot_id: str) -> Tracked:
    """No mark began: the base goes on, and has recorded all since the snapshot before. An image that is put back may
    have it with less than that; so what was told of it counts from here on, whatever it tells later."""
    if not tracked.base:
        return replace(tracked, snapshot=snapshot_id, entire=Blocks(), owed=Blocks())
    return replace(tracked, snapshot=snapshot_id, entire=tracked.owed, reason="")


def _published(context: Context, vm: str, completion: Completion) -> Manifest | None:
    """The manifest, if an earlier try came through. Raises ``Superseded``."""
    draft = context.journal.draft(vm)
    if draft is None or draft.repository != context.repository.id:
        raise Superseded("It was begun in another repository.")
    found = bases.find(context, completion.id)
    if found is not None and found.facts.get("base_mark") != completion.base_mark:
        raise Superseded("Its draft became another snapshot (an old copy of the state was put back?).")
    return found


#: A collector deletes something else each time: more often than this it is no coincidence.
ATTEMPTS = 3


def _built(building: Building) -> Manifest:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return building.build()
        except losses.Swept:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")
