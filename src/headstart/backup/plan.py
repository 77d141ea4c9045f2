"""Decisions of a backup as functions of values: no clock, no socket, no store."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart import blocks, units
from headstart.blocks import Blocks
from headstart.hypervisor.inventory import Disk, Recorder
from headstart.state.values import Facts, Tracked
from headstart.tracking.mark import Kind, Mark, Standing

#: A round that copied less than this leaves so little behind that another one is not worth its rotation.
SETTLED_BYTES = 64 * units.MIB
#: Rounds before a completion: a guest that writes faster than we copy is not caught up with.
MOST_ROUNDS = 4
#: 3,000 random blocks find a share of 0.1 % false ones with a probability of 95 %. So many are drawn of what the agent
#: in the guest delivered, or where it delivered nothing, of everything else.
AUDIT_BLOCKS = 3000
#: So many times that at least of everything else, however many are drawn of what the agent delivered.
AUDIT_REST_SHARE = 1 / 3
#: Of these, how many are drawn from the draft; the others from what was reported as unchanged.
AUDIT_DRAFT_SHARE = 2 / 3

FIRST = "first backup"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be believed of one disk at a contact.

    ``base_holds``: the base mark recorded every change since its snapshot. ``rounds``: the marks to
    read for what changed since the newest round; empty if the draft's part of the disk cannot be
    believed. ``reason``: why the base does not hold."""

    disk: Disk
    base_holds: bool
    rounds: tuple[Mark, ...]
    reason: str = ""


def judge(
    tracked: Tracked | None,
    disk: Disk,
    standing: Mapping[Mark, Standing],
    next_rounds: Sequence[str],
    *,
    snapshot_there: bool,
) -> Verdict:
    """Believe a mark only if exactly the expected one records, on the disk that it was made for.

    ``snapshot_there``: the snapshot that ``tracked`` follows is in the repository (or there is none)."""
    if disk.untracked:
        return Verdict(disk, False, (), disk.untracked)
    if tracked is None:
        return Verdict(disk, False, (), FIRST)
    reason = "" if tracked.base else tracked.reason
    reason = reason or _changed_disk(tracked.facts, disk) or _lost(standing.get(Mark(Kind.BASE, tracked.base)))
    if not reason and not snapshot_there:
        reason = "its last snapshot is not in this repository any longer, or not whole"
    if reason:
        return Verdict(disk, False, (), reason)
    rounds = _rounds(tracked.round, next_rounds, standing)
    if disk.recorder is Recorder.OVERLAY and not rounds:
        # What its base mark recorded before the newest round is in the journal alone.
        return Verdict(disk, False, (), "the overlay of the last round is not on it (an old image or state put back?)")
    return Verdict(disk, True, rounds)


def facts_of(disk: Disk) -> Facts:
    """Overlays of ours come and go."""
    return Facts(disk.size, disk.format, disk.layers[disk.overlays :])


def _changed_disk(known: Facts, disk: Disk) -> str:
    if known.size > disk.size:
        before, now = units.format_bytes(known.size), units.format_bytes(disk.size)
        return f"it was shrunk from {before} to {now} ({known.size} to {disk.size} bytes)"
    if known.format != disk.format:
        return f"its format was changed from {known.format} to {disk.format}"
    if known.layers != facts_of(disk).layers:
        return "its image or backing chain is not the one of the last contact (a snapshot, a move, a restore?)"
    return ""


def new_part(known: Facts, disk: Disk, block_size: int) -> Blocks:
    """What a disk has now and had not at the last contact, and the block that ended short then. Marks do not tell of
    it; all else they tell as before (of one that was shrunk in between see ``comparison.ends``)."""
    found = Blocks()
    if disk.size > known.size:
        found.add_range(known.size // block_size, blocks.count_of(disk.size, block_size))
    return found


def _lost(standing: Standing | None) -> str:
    match standing:
        case Standing.RECORDING:
            return ""
        case Standing.FROZEN:
            return "the bitmap that records its changes was disabled by somebody"
        case Standing.BROKEN:
            return "the bitmap that records its changes is inconsistent, or below another layer"
    return (
        "the bitmap that recorded its changes is gone (the VM was restarted, or migrated without its bitmaps, or an old"
        " image was put back)"
    )


def _rounds(newest: str, next_rounds: Sequence[str], standing: Mapping[Mark, Standing]) -> tuple[Mark, ...]:
    """The marks that together recorded everything since the newest round began.

    ``next_rounds`` were begun by runs that failed before they had read it: each ended the one before it (or let
    it go on, where a hypervisor can freeze none), and the last may not have begun. Once the newest is read and
    removed the journal says so, so a missing mark means an old journal or an old image::

        newest   .....frozen|
        next                |.....frozen|
        next                            |.....recording
    """
    marks = [Mark(Kind.ROUND, each) for each in (newest, *next_rounds)]
    if next_rounds and marks[-1] not in standing:
        marks.pop()
    states = [standing.get(mark) for mark in marks]
    held = (Standing.FROZEN, Standing.RECORDING)
    unbroken = states[-1] is Standing.RECORDING and all(state in held for state in states[:-1])
    return tuple(marks) if newest and unbroken else ()


@dataclass(frozen=True, slots=True)
class Residue:
    """What a completion does with the blocks of one disk. ``changed`` count as changed since the last
    snapshot; of these ``precopied`` are taken from the draft, ``residue`` from the point in time."""

    changed: Blocks
    precopied: Blocks
    residue: Blocks


def residue(recorded: Blocks, entire: Blocks, draft: Blocks, stale: Blocks, protected: Blocks | None) -> Residue:
    """``recorded`` by the base mark, ``entire`` besides; ``stale``: recorded by the newest round.

    ``protected`` (None: everything) is all that can be read. A changed block outside of it was only
    written after the point in time: the last snapshot, or the draft, has what it was."""
    changed = recorded | entire
    precopied = (draft & changed) - stale
    rest = changed - precopied
    if protected is not None:
        rest &= protected
        changed = precopied | rest
    return Residue(changed, precopied, rest)


def leave_out(found: Residue, excluded: Blocks) -> Residue:
    """What is left out is not read, and counts as changed: the snapshot has zeroes there, whatever the last one had."""
    return Residue(found.changed | excluded, found.precopied - excluded, found.residue - excluded)


def worth_another_round(copied_bytes: int, rounds: int) -> bool:
    """Whether what was written while a round copied ``copied_bytes`` is worth one more."""
    return copied_bytes > SETTLED_BYTES and rounds < MOST_ROUNDS


@dataclass(frozen=True, slots=True)
class Sample:
    """Blocks of one disk to compare at the point in time: of the draft, and of what is unchanged."""

    draft: Blocks
    unchanged: Blocks

    @property
    def blocks(self) -> Blocks:
        return self.draft | self.unchanged


@dataclass(frozen=True, slots=True)
class Population:
    """Blocks of one disk that the audit draws from: of the draft what the agent in the guest delivered, and what was
    read from outside; and what was reported as unchanged."""

    delivered: Blocks
    copied: Blocks
    unchanged: Blocks


def sample(disks: Mapping[str, Population], wanted: int | None, source: random.Random) -> dict[str, Sample]:
    """Draw blocks (``wanted`` None: take all), each kind evenly over the VM. What the guest says is drawn from as if
    there were nothing else, so that the probability of finding it false depends on nothing else."""
    if wanted is None:
        return {disk: Sample(each.delivered | each.copied, each.unchanged) for disk, each in disks.items()}
    delivered = {disk: each.delivered for disk, each in disks.items()}
    copied = {disk: each.copied for disk, each in disks.items()}
    unchanged = {disk: each.unchanged for disk, each in disks.items()}
    from_delivered = min(_total(delivered), wanted)
    rest = max(wanted - from_delivered, round(wanted * AUDIT_REST_SHARE))
    from_copied = min(_total(copied), round(rest * AUDIT_DRAFT_SHARE))
    from_unchanged = min(_total(unchanged), rest - from_copied)
    from_copied = min(_total(copied), rest - from_unchanged)
    drawn = draw(delivered, from_delivered, source)
    others, same = draw(copied, from_copied, source), draw(unchanged, from_unchanged, source)
    return {disk: Sample(drawn[disk] | others[disk], same[disk]) for disk in disks}


def sample_size(disks: Iterable[int], wanted: int | None, *, delivered: bool) -> int:
    """Blocks that are compared of disks of so many blocks, at most. ``delivered``: the guest may have said something of
    them, which is drawn from by itself."""
    everything = sum(disks)
    if wanted is None:
        return everything
    return min(everything, wanted + (round(wanted * AUDIT_REST_SHARE) if delivered else 0))


def draw(disks: Mapping[str, Blocks], wanted: int, source: random.Random) -> dict[str, Blocks]:
    """So many blocks at random, of each disk by its share, rounded up."""
    total = _total(disks)
    return {
        disk: blocks.sample(found, -(-wanted * len(found) // total) if total else 0, source)
        for disk, found in disks.items()
    }


def _total(disks: Mapping[str, Blocks]) -> int:
    return sum(map(len, disks.values()))
