"""Identification: which blocks changed, learned from outside the guest in milliseconds.

::

    judge what stands  ->  journal: this round begins  ->  rotate all marks at one moment
       ->  read the old ones  ->  journal: what is owed, what of the draft is stale  ->  drop the old ones

Killed anywhere, and however often, the next contact finds either the old mark recording, or the old one
frozen beside those begun since, the last of them recording (plan.judge); anything else costs the draft of
that disk.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from headstart import blocks, units
from headstart.backup import bases, plan, records
from headstart.backup.contact import Contact
from headstart.backup.plan import Verdict
from headstart.blocks import Blocks
from headstart.hypervisor.inventory import Disk, Recorder
from headstart.repository import draft as drafts
from headstart.repository import snapshot, tree
from headstart.repository.manifest import Disk as StoredDisk
from headstart.state.values import Draft, Tracked
from headstart.tracking.mark import Kind, Mark, Standing


@dataclass(frozen=True, slots=True)
class Identified:
    """A round that has begun. By disk: ``reported`` are the blocks that count as changed; ``recorded`` those of them
    that marks told (of a disk without a base everything is reported, and nothing recorded); ``wasted`` those that had
    been copied."""

    draft: Draft
    round: str
    disks: Mapping[str, Tracked]
    reported: Mapping[str, Blocks]
    recorded: Mapping[str, Blocks]
    wasted: Mapping[str, Blocks]
    seconds: float


def run(contact: Contact) -> Identified:
    began = time.monotonic()
    journal, name = contact.context.journal, contact.name
    contact.context.beat()
    # What keeps marks from being read is told before new ones are begun that nobody would read.
    contact.tracker.changed({})
    standing = contact.tracker.standing()
    known = contact.tracked()
    draft = _draft(contact)
    verdicts = _verdicts(contact, draft, known, standing)
    begun = _begun(draft, standing)
    if begun:
        # A run failed after that, maybe as nobody can read marks: each try would begin one more.
        contact.tracker.changed(
            {each.disk.name: _marks_to_read(each, known[each.disk.name]) for each in verdicts if each.base_holds}
        )
    round_id = secrets.token_hex(8)
    draft = replace(draft, next_rounds=(*begun, round_id))
    prepared = {verdict.disk.name: _prepared(contact, verdict, known) for verdict in verdicts}
    draft = _held(contact, draft, known, prepared)
    doubted = [verdict.disk.name for verdict in verdicts if not verdict.rounds and not _is_guide(verdict, known)]
    journal.begin_round(name, draft, prepared.values(), doubted)
    _rotate(contact, round_id, verdicts, prepared, standing)
    recorded = contact.tracker.changed(
        {verdict.disk.name: _marks_to_read(verdict, prepared[verdict.disk.name]) for verdict in verdicts}
    )
    unknown = [verdict for verdict in verdicts if not verdict.base_holds and not verdict.disk.untracked]
    entire = _whole_disks(contact, [prepared[verdict.disk.name] for verdict in unknown])
    disks = {
        verdict.disk.name: _compared(contact, prepared[verdict.disk.name], round_id)
        if verdict.disk.untracked
        else _identified(verdict, prepared[verdict.disk.name], recorded, entire, round_id)
        for verdict in verdicts
    }
    wasted = {disk: found & journal.copied_blocks(name, disk) for disk, found in recorded.items() if found}
    ended = replace(draft, rounds=draft.rounds + 1, next_rounds=())
    journal.end_round(name, ended, disks.values(), recorded)
    # Before anything is copied: the images have everything again, and what their overlays told is in the journal.
    contact.tracker.settle(contact.layered(disks))
    sweep(contact)
    reported = {disk: entire.get(disk, Blocks()) | found for disk, found in recorded.items()}
    return Identified(ended, round_id, disks, reported, recorded, wasted, time.monotonic() - began)


def at_rest(contact: Contact) -> Identified:
    """Of a VM that is off: no mark begins or ends. What a mark has not recorded is left to be compared, and so
    counts as untracked from here on."""
    began = time.monotonic()
    journal, name = contact.context.journal, contact.name
    standing, known = contact.tracker.standing(), contact.tracked()
    draft = _draft(contact)
    verdicts = [_comparable(verdict) for verdict in _verdicts(contact, draft, known, standing)]
    contact.inventory = replace(contact.inventory, disks=tuple(verdict.disk for verdict in verdicts))
    doubted = [verdict.disk.name for verdict in verdicts if not verdict.rounds and not _is_guide(verdict, known)]
    prepared = {verdict.disk.name: _prepared(contact, verdict, known) for verdict in verdicts}
    draft = _held(contact, draft, known, prepared)
    # What is known stays as it is until the images are read: the VM may be started meanwhile.
    journal.begin_round(
        name, draft, [known.get(each.name, replace(each, base="")) for each in prepared.values()], doubted
    )
    marks = {verdict.disk.name: _marks_to_read(verdict, prepared[verdict.disk.name]) for verdict in verdicts}
    recorded = contact.tracker.changed(marks)
    for disk, stale in recorded.items():
        journal.forget_copied(name, disk, stale)
    disks = {
        verdict.disk.name: _identified(
            verdict, prepared[verdict.disk.name], recorded, {}, prepared[verdict.disk.name].round
        )
        if verdict.base_holds
        else replace(_compared(contact, prepared[verdict.disk.name], ""), base="")
        for verdict in verdicts
    }
    return Identified(draft, "", disks, recorded, recorded, {}, time.monotonic() - began)


def _comparable(verdict: Verdict) -> Verdict:
    if verdict.base_holds or verdict.disk.untracked:
        return verdict
    return replace(verdict, disk=replace(verdict.disk, untracked=verdict.reason))


def _verdicts(
    contact: Contact,
    draft: Draft,
    known: Mapping[str, Tracked],
    standing: Mapping[str, Mapping[Mark, Standing]],
) -> list[Verdict]:
    return [
        plan.judge(
            known.get(disk.name),
            disk,
            standing.get(disk.name, {}),
            draft.next_rounds,
            snapshot_there=_snapshot_there(contact, known.get(disk.name)),
        )
        for disk in contact.inventory.disks
    ]


def _draft(contact: Contact) -> Draft:
    """The draft at work, or a new one."""
    context = contact.context
    present = context.journal.draft(contact.name)
    if present is not None and not _ended(contact, present):
        return present
    begun = context.clock()
    roots = records.base_roots(context, contact.name, contact.tracked().values())
    stored = drafts.begin(context.repository, contact.name, context.host, begun, roots=roots)
    return Draft(stored.id, context.repository.id, records=1, begun=begun)


def _held(contact: Contact, draft: Draft, known: Mapping[str, Tracked], prepared: Mapping[str, Tracked]) -> Draft:
    """Snapshots that disks follow from now on, and the draft's records do not hold yet."""
    new = [each for name, each in prepared.items() if name not in known or known[name].snapshot != each.snapshot]
    return records.hold(contact.context, contact.name, draft, new)


def _is_guide(verdict: Verdict, known: Mapping[str, Tracked]) -> bool:
    """Nothing records the disk: what the draft has of it is not believed, but compared block by block. So it may
    be of any age."""
    disk = verdict.disk
    return bool(disk.untracked) and disk.name in known and known[disk.name].facts.size == disk.size


def _begun(draft: Draft, standing: Mapping[str, Mapping[Mark, Standing]]) -> list[str]:
    """Those of the next rounds that have begun: a run may have died before it came to that."""
    there = {mark for marks in standing.values() for mark in marks}
    return [each for each in draft.next_rounds if Mark(Kind.ROUND, each) in there]


def _snapshot_there(contact: Contact, tracked: Tracked | None) -> bool:
    return tracked is None or tracked.snapshot is None or contact.bases.last_whole(tracked) is not None


def _ended(contact: Contact, draft: Draft) -> bool:
    """Whether the draft became a snapshot, or was given up by a collector of garbage, behind our back:
    its blocks may be swept any moment. An old copy of the journal tells of such drafts too."""
    repo = contact.context.repository
    if draft.repository != repo.id:
        contact.notes.append("the draft was begun in another repository; a new one was begun")
        return True
    if bases.find(contact.context, draft.id) is not None:
        contact.notes.append("the draft was published already (an old copy of the state?); a new one was begun")
        return True
    if snapshot.is_revoked(repo, draft.id):
        contact.notes.append("the draft had been given up for its age; a new one was begun")
        return True
    return False


def _prepared(contact: Contact, verdict: Verdict, known: Mapping[str, Tracked]) -> Tracked:
    """What is true of a disk from the moment its marks stand."""
    disk = verdict.disk
    tracked = known.get(disk.name)
    if tracked is not None and verdict.base_holds:
        return _with_lost(contact, _grown(contact, tracked, disk))
    everything = blocks.everything(disk.size, contact.context.repository.block_size)
    before = tracked.snapshot if tracked and contact.bases.last_whole(tracked) else contact.bases.newest(disk.name)
    reason = verdict.reason
    if tracked is None and before is not None:
        reason = f"this installation does not know what changed since snapshot {before[:12]}"
    return Tracked(
        name=disk.name,
        nonce=contact.nonces[disk.name],
        facts=plan.facts_of(disk),
        base=secrets.token_hex(16),
        snapshot=before,
        round="",
        entire=everything,
        owed=everything,
        reason=reason,
    )


def _with_lost(contact: Contact, tracked: Tracked) -> Tracked:
    """What the repository has lost of the last snapshot counts as changed."""
    lost = contact.bases.lost(tracked)
    if not lost:
        return tracked
    contact.note(f"disk {tracked.name}: {len(lost)} blocks of the last snapshot are lost, and are read again")
    return replace(tracked, entire=tracked.entire | lost, owed=tracked.owed | lost)


def _grown(contact: Contact, tracked: Tracked, disk: Disk) -> Tracked:
    """Its new part counts as changed."""
    added = plan.new_part(tracked.facts, disk, contact.context.repository.block_size)
    if not added:
        return tracked
    before, now = units.format_bytes(tracked.facts.size), units.format_bytes(disk.size)
    contact.note(f"disk {disk.name} grew from {before} to {now}: what is new is read")
    # What ended short is another block now, also if we die before the round is read.
    contact.context.journal.forget_copied(contact.name, disk.name, added)
    return replace(tracked, facts=plan.facts_of(disk), entire=tracked.entire | added, owed=tracked.owed | added)


def _rotate(
    contact: Contact,
    round_id: str,
    verdicts: list[Verdict],
    prepared: Mapping[str, Tracked],
    standing: Mapping[str, Mapping[Mark, Standing]],
) -> None:
    recorded = [verdict for verdict in verdicts if not verdict.disk.untracked]
    # Not everybody begins them at one moment: what a round records, its base has to have as well.
    start = [
        (verdict.disk.name, Mark(Kind.BASE, prepared[verdict.disk.name].base))
        for verdict in recorded
        if not verdict.base_holds
    ]
    start += [(verdict.disk.name, Mark(Kind.ROUND, round_id)) for verdict in recorded]
    end = [
        (verdict.disk.name, mark)
        for verdict in verdicts
        for mark in verdict.rounds
        if standing[verdict.disk.name][mark] is Standing.RECORDING
    ]
    contact.tracker.rotate(start, end)


def _marks_to_read(verdict: Verdict, tracked: Tracked) -> list[Mark]:
    """Without the round's marks everything since the snapshot is owed again; without a base all is."""
    if verdict.rounds:
        return list(verdict.rounds)
    return [Mark(Kind.BASE, tracked.base)] if verdict.base_holds else []


def _identified(
    verdict: Verdict,
    prepared: Tracked,
    recorded: Mapping[str, Blocks],
    entire: Mapping[str, Blocks],
    round_id: str,
) -> Tracked:
    name = verdict.disk.name
    if not verdict.base_holds:
        return replace(prepared, round=round_id, entire=entire[name], owed=entire[name])
    known = prepared.owed if verdict.rounds else prepared.entire
    found = replace(prepared, round=round_id, owed=known | recorded[name])
    # Overlays are committed when they have been read: what they told is known here alone.
    layered = verdict.disk.recorder is Recorder.OVERLAY
    return replace(found, entire=prepared.entire | recorded[name]) if layered else found


def _compared(contact: Contact, prepared: Tracked, round_id: str) -> Tracked:
    """Of a disk that nothing records: only what differed when it was compared is known to have changed."""
    copied = contact.context.journal.copied_blocks(contact.name, prepared.name)
    return replace(prepared, round=round_id, entire=Blocks(), owed=copied)


def _whole_disks(contact: Contact, disks: list[Tracked]) -> dict[str, Blocks]:
    """What of disks without a base can differ from their last snapshot: what is allocated now (asked
    for after the marks began to record), and what was not zero then."""
    if not disks:
        return {}
    size = contact.context.repository.block_size
    found = {tracked.name: tracked.entire for tracked in disks}
    with contact.machine.live([tracked.name for tracked in disks]) as readers:
        for tracked in disks:
            if tracked.name in readers:
                contact.require_size(tracked.name, readers[tracked.name])
                allocated = blocks.of_extents(readers[tracked.name].allocated(), size)
                found[tracked.name] = allocated | _not_zero(contact, contact.bases.require(tracked), tracked.facts.size)
    contact.require_standing({tracked.name: Mark(Kind.BASE, tracked.base) for tracked in disks})
    return found


def _not_zero(contact: Contact, last: StoredDisk | None, size: int) -> Blocks:
    if last is None:
        return Blocks()
    repo = contact.context.repository
    count = blocks.count_of(min(size, last.size), repo.block_size)
    return Blocks(block for block, _ in tree.walk(repo, last.root, last.size, 0, count))


def sweep(contact: Contact) -> None:
    """Remove marks of ours that nothing expects: of dead runs, of failed completions, of copies. Keep what finds
    the others again."""
    known = contact.tracked()
    expected = {
        (name, mark)
        for name, tracked in known.items()
        for mark in (Mark(Kind.BASE, tracked.base), Mark(Kind.ROUND, tracked.round))
    }
    standing = contact.tracker.standing()
    contact.tracker.drop([(disk, mark) for disk in standing for mark in standing[disk] if (disk, mark) not in expected])
    contact.tracker.drop_strays()
    contact.context.journal.keep(contact.name, contact.machine.keepsakes())
