"""How a VM stands, as the journal knows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from headstart.backup import whereabouts
from headstart.backup.report import VolumeReport
from headstart.backup.whereabouts import Change
from headstart.state.journal import Journal
from headstart.state.noted import Noted
from headstart.state.runs import Runs


@dataclass(frozen=True, slots=True)
class Status:
    """What the journal knows; the VM is not asked. ``agent_distrusted``: since when and why its agent reads nothing;
    ``half_rolled_back``: the snapshot of a rollback that was interrupted while it wrote."""

    vm: str
    snapshot: str | None
    #: Point in time of the newest snapshot that was published from here, seconds since 1970.
    protected_until: float | None
    draft: str | None
    rounds: int
    copied_bytes: int
    remaining_bytes: int
    spooled: bool
    agent_distrusted: dict[str, Any] | None
    half_rolled_back: str | None
    last_run: dict[str, Any] | None
    #: As they lay at the last backup, like ``VolumeReport``, with what remains of each.
    volumes: tuple[dict[str, Any], ...] = ()


def status_of(journal: Journal, name: str, block_size: int) -> Status:
    journal.vm(name)
    tracked, draft, point = journal.tracked(name), journal.draft(name), journal.point(name)
    distrust, rollback = journal.distrusted(name), Noted(journal).rollback(name)
    copied = {disk: journal.copied_blocks(name, disk) for disk in tracked}
    changes = {}
    for disk, each in tracked.items():
        changed = each.owed - each.excluded
        changes[disk] = Change(each.facts.size, changed, changed - copied[disk], each.excluded)
    left = sum(len(each.residue) for each in changes.values())
    seen = whereabouts.recall(journal, name)
    runs = Runs(journal).newest(name, 1)
    last = runs[0] if runs else None
    return Status(
        vm=name,
        snapshot=next((each.snapshot for each in tracked.values() if each.snapshot), None),
        protected_until=point.created if point else None,
        draft=draft.id if draft else None,
        rounds=draft.rounds if draft else 0,
        copied_bytes=sum(map(len, copied.values())) * block_size,
        remaining_bytes=left * block_size,
        spooled=journal.completion(name) is not None,
        agent_distrusted=dataclasses.asdict(distrust) if distrust else None,
        half_rolled_back=rollback.snapshot if rollback is not None and rollback.writing else None,
        last_run=None
        if last is None
        else {"verb": last.verb, "begun": last.begun, "ended": last.ended, "error": last.report.get("error")},
        volumes=tuple(_remaining_of(each) for each in whereabouts.tell(seen, changes, block_size)),
    )


def _remaining_of(volume: VolumeReport) -> dict[str, Any]:
    told = dataclasses.asdict(volume)
    return told | {"remaining_bytes": told.pop("residue_bytes")}
