"""What the state of a host knows of a repository, and would be missed there."""

from __future__ import annotations

from headstart.repository.census import Remembered
from headstart.repository.repo import Repository
from headstart.state.journal import Journal


def of(journal: Journal, repo: Repository) -> Remembered:
    """Of the VMs whose draft is in this repository: the draft, and the snapshots that it builds on."""
    snapshots: dict[str, None] = {}
    drafts: dict[str, int] = {}
    for vm in journal.vms():
        draft = journal.draft(vm.name)
        if draft is not None and draft.repository == repo.id:
            drafts[draft.id] = draft.records
            snapshots.update({each.snapshot: None for each in journal.tracked(vm.name).values() if each.snapshot})
    return Remembered(tuple(snapshots), drafts)
