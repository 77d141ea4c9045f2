"""A trace played to policies in virtual time.

A block that is written between a rotation and its copy is reported by the next rotation and leaves the draft, also if
the copy came after the write: like the daemon, a policy cannot know. A block leaves what remains only by a copy after
the rotation that told of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from headstart.backup.agenda import ROTATION
from headstart.blocks import Blocks
from headstart.simulation.copier import Copier, Full, Governed, Portion
from headstart.simulation.policies import HeadStart, Immediate, Nothing, Oracle, Policy, Round
from headstart.simulation.world import BUSY_SHARE, Totals, World

#: The simple policy: a round every five minutes.
IMMEDIATE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Results:
    """By the name of the policy."""

    totals: dict[str, Totals]
    headstart: HeadStart


def compare(world: World) -> Results:
    """All policies on one trace."""
    ours = HeadStart(world)
    totals = {
        "deadline": replay(world, Nothing(), full(world)),
        "immediate": replay(world, Immediate(IMMEDIATE_SECONDS), full(world)),
        "headstart": replay(world, ours, governed(world)),
    }
    totals["oracle"] = replay(world, Oracle(world, totals["headstart"].rotations), governed(world))
    return Results(totals, ours)


def full(world: World) -> Copier:
    return Full(world.load, world.bandwidth, world.block_bytes)


def governed(world: World) -> Copier:
    return Governed(world.load, world.bandwidth, world.block_bytes)


def replay(world: World, policy: Policy, copier: Copier) -> Totals:
    """Over all deadlines."""
    totals = Totals()
    begin, busy = 0.0, world.load.percentile(BUSY_SHARE)
    for deadline in world.deadlines:
        _Period(world, policy, copier, totals, busy).run(begin, deadline)
        begin = deadline
    return totals


class _Period:
    """From one backup to the next."""

    def __init__(self, world: World, policy: Policy, copier: Copier, totals: Totals, busy: float) -> None:
        self._world = world
        self._policy = policy
        self._copier = copier
        self._totals = totals
        self._busy = busy
        self._changed, self._draft = Blocks(), Blocks()

    def run(self, begin: float, deadline: float) -> None:
        now, rotated, ended = begin, begin, None
        while (at := self._policy.next_round(now, deadline, ended)) is not None and at < deadline:
            this = self._rotate(rotated, at, deadline)
            self._totals.rotations.append(at)
            ended = self._copy(this, self._policy.chosen(this))
            now = max(ended, at + ROTATION)
            rotated = at
        at_the_end = deadline == self._world.deadlines[-1]
        last = self._rotate(rotated, math.nextafter(deadline, math.inf) if at_the_end else deadline, deadline)
        residue = self._changed - self._draft
        self._policy.completed(last, len(residue))
        self._totals.changed += self._world.bytes_of(self._changed)
        self._totals.residues.append(self._world.bytes_of(residue))

    def _rotate(self, since: float, now: float, deadline: float) -> Round:
        dirty, before = self._world.trace.dirty(since, now), self._draft
        self._changed |= dirty
        self._draft = before - dirty
        self._totals.wasted += self._world.bytes_of(before & dirty)
        return Round(now, deadline, dirty, self._changed - self._draft, before)

    def _copy(self, this: Round, chosen: Blocks) -> float:
        """When it ended."""
        done, reading, ended = Blocks(), 0.0, this.begin
        until = min(self._policy.cut(this), this.deadline)
        for portion in self._copier.copy(chosen, this.begin + ROTATION, until, this.deadline):
            self._count(portion)
            done |= portion.blocks
            reading += portion.seconds
            ended = portion.begin + portion.seconds
        if len(done) < len(chosen):
            ended = until
        self._draft = self._draft | done
        self._policy.copied(ended, chosen, len(done), reading)
        return ended

    def _count(self, portion: Portion) -> None:
        count = self._world.bytes_of(portion.blocks)
        self._totals.copied += count
        if self._world.load.at(portion.begin) > self._busy:
            self._totals.under_load += count
        self._totals.copies.append(portion)
