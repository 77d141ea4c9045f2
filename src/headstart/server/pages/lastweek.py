"""A week of a VM played again under another policy, out of what its host has told: a function of values.

Known is how much changed between two rounds, how much of it in all until a backup, and the load. Not known is which
blocks changed, and when within a round. So a trace is made that comes to the same sums: what changed between two rounds
is spread evenly over that time; of it, the share that makes the sum of a backup is new, and the rest are blocks that
were written before, always the same ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from headstart import errors, units
from headstart.host import account, calendar
from headstart.host.policy import Policy
from headstart.simulation import replay, trace
from headstart.simulation.load import Load
from headstart.simulation.policies import HeadStart, Nothing, Oracle
from headstart.simulation.world import Totals, World
from headstart.state.series import MINUTE, Minute
from headstart.state.values import Run

WEEK = 7 * 86400.0
#: Blocks of a trace: with more of them, each stands for several.
_MOST_BLOCKS = 60_000
_MOST_BACKUPS = 350
#: Bytes a second where the windows of the week tell nothing.
_BANDWIDTH = 100.0 * units.MIB
_ENOUGH = 4 * units.MIB


@dataclass(frozen=True, slots=True)
class _Week(World):
    """``moments``: when the backups are, by the schedule."""

    moments: tuple[float, ...] = ()

    @property
    def deadlines(self) -> list[float]:
        return list(self.moments)


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes and seconds of a way of doing it; None: not known. ``ahead``: copied, of which ``wasted`` was for nothing,
    and ``busy`` while the VM was under load."""

    title: str
    backups: int
    residue: float
    window: float | None
    longest: float | None
    ahead: float | None = None
    wasted: float | None = None
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """``left_out``: what the policy says and this does not play."""

    rows: tuple[Row, ...]
    days: float
    changed: float
    rounds: int
    loads: int
    bandwidth: float
    is_measured: bool
    scale: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """``dirty`` bytes were written to in it, ``fresh`` of them for the first time since the last backup."""

    begin: float
    end: float
    dirty: float
    fresh: float


def play(policy: Policy, minutes: Sequence[Minute], runs: Sequence[Run], until: float) -> Replayed:
    """``minutes`` and ``runs`` of the week before ``until``, in any order. Raises ``Usage`` where they tell too little,
    or the schedule is too dense."""
    accounts = sorted((account.of(run) for run in runs), key=lambda each: each.moment)
    backups = [each for each in accounts if each.verb == "backup" and each.succeeded and each.dirty is not None]
    rounds = [each for each in accounts if each.verb == "precopy" and each.error is None and each.dirty is not None]
    since = _beginning(minutes, accounts, until)
    stretches = list(_stretches(backups, rounds, since, until))
    if not stretches:
        raise errors.Usage("The host has told of no backup of it in the last week: there is nothing to compute with.")
    moments = _moments(policy, since, stretches[-1].end)
    total = sum(each.dirty for each in stretches)
    scale = max(1, math.ceil(total / units.BLOCK_SIZE / _MOST_BLOCKS))
    load = _load(minutes, since, moments[-1])
    bandwidth, is_measured = _bandwidth(backups)
    writes = trace.of(_writes(stretches, since, moments[-1], scale))
    # The audit is in the rate, which is that of whole windows.
    week = _Week(writes, load, moments[-1] / len(moments), bandwidth, scale, audit=0, moments=moments)
    return Replayed(
        (_recorded(backups), *_played(policy, week)),
        (until - since) / 86400,
        sum(each.fresh for each in stretches),
        len(rounds),
        len(load.moments),
        bandwidth,
        is_measured,
        scale,
        tuple(_left_out(policy)),
    )


def _beginning(minutes: Sequence[Minute], accounts: Sequence[account.Account], until: float) -> float:
    known = [*(float(each.moment) for each in minutes), *(each.begun for each in accounts)]
    return max(until - WEEK, min(known, default=until))


def _stretches(
    backups: Sequence[account.Account], rounds: Sequence[account.Account], since: float, until: float
) -> Iterator[_Stretch]:
    """Up to the last backup: what comes after it no backup has told of."""
    begin = since
    for backup in backups:
        inside = [each for each in rounds if begin < each.begun <= backup.moment]
        edges = [begin, *(each.begun for each in inside), backup.moment]
        dirty = [each.dirty or 0.0 for each in inside]
        changed = backup.dirty or 0.0
        # After the last round: at most what was read in the window, and no more than the rounds let expect.
        covered = edges[-2] - begin
        usual = sum(dirty) / covered * (edges[-1] - edges[-2]) if covered > 0 else changed
        dirty.append(min(backup.copied or 0.0, usual) if inside else changed)
        # What rounds did not find (they failed, or are not told) was written some time.
        lacking = max(0.0, changed - sum(dirty))
        length = max(1.0, edges[-1] - begin)
        dirty = [each + lacking * (end - at) / length for each, (at, end) in zip(dirty, _pairs(edges), strict=True)]
        share = changed / sum(dirty) if sum(dirty) else 0.0
        for each, (at, end) in zip(dirty, _pairs(edges), strict=True):
            if end > at:
                yield _Stretch(at, end, each, each * share)
        begin = backup.moment


def _pairs(edges: Sequence[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(edges))


def _writes(stretches: Sequence[_Stretch], since: float, end: float, scale: int) -> Iterator[tuple[float, int, int]]:
    """Seconds since ``since``, offset, length. Fresh blocks go on where the last ones ended; those that are written
    again are the first of all."""
    size = units.BLOCK_SIZE
    place, fresh_rest, again_rest = 0, 0.0, 0.0
    yield 0.0, 0, size
    for stretch in stretches:
        steps = max(1, math.ceil((stretch.end - stretch.begin) / MINUTE))
        for step in range(steps):
            moment = stretch.begin + (stretch.end - stretch.begin) * step / steps - since
            if moment > end:
                return
            fresh_rest += stretch.fresh / steps / size / scale
            again_rest += (stretch.dirty - stretch.fresh) / steps / size / scale
            fresh, again = int(fresh_rest), int(again_rest)
            fresh_rest, again_rest = fresh_rest - fresh, again_rest - again
            if fresh:
                yield moment, place * size, fresh * size
                place += fresh
            if again and place:
                yield moment, 0, min(again, place) * size


def _moments(policy: Policy, since: float, end: float) -> tuple[float, ...]:
    """Seconds since ``since``."""
    found: list[float] = []
    at = datetime.fromtimestamp(since, UTC)
    while (following := calendar.following(policy.schedule, at)) is not None and following.timestamp() <= end:
        found.append(following.timestamp() - since)
        at = following
        if len(found) > _MOST_BACKUPS:
            raise errors.Usage(f"That schedule has more than {_MOST_BACKUPS} backups in a week: too many to play here.")
    if not found:
        raise errors.Usage("That schedule has no backup in the time that is known.")
    return tuple(found)


def _load(minutes: Sequence[Minute], since: float, end: float) -> Load:
    known = sorted((each.moment - since, each.load) for each in minutes if each.load is not None)
    inside = [(moment, min(1.0, max(0.0, load))) for moment, load in known if 0 <= moment <= end]
    return Load([moment for moment, _ in inside], [load for _, load in inside], end)


def _bandwidth(backups: Sequence[account.Account]) -> tuple[float, bool]:
    large = [(each.copied, each.window) for each in backups if (each.copied or 0) >= _ENOUGH and each.window]
    seconds = sum(window or 0.0 for _, window in large)
    return (sum(read or 0.0 for read, _ in large) / seconds, True) if seconds > 0 else (_BANDWIDTH, False)


def _recorded(backups: Sequence[account.Account]) -> Row:
    windows = [each.window for each in backups if each.window is not None]
    residue = sum(each.copied or 0.0 for each in backups)
    mean = sum(windows) / len(windows) if windows else None
    return Row("As it was", len(backups), residue, mean, max(windows, default=None))


def _played(policy: Policy, week: _Week) -> Iterator[Row]:
    yield _row("This schedule, no head start", week, replay.replay(week, Nothing(), replay.full(week)))
    if not policy.head_start.transports:
        return
    ours = replay.replay(week, HeadStart(week, policy.head_start.interval), replay.governed(week))
    yield _row("This policy", week, ours)
    oracle = replay.replay(week, Oracle(week, ours.rotations), replay.governed(week))
    yield _row("The same, knowing the future", week, oracle)


def _row(title: str, week: _Week, totals: Totals) -> Row:
    windows = week.windows(totals)
    mean = sum(windows) / len(windows)
    return Row(title, len(windows), totals.residue, mean, max(windows), totals.copied, totals.wasted, totals.under_load)


def _left_out(policy: Policy) -> Iterator[str]:
    if policy.head_start.begin_before is not None:
        yield "head_start.begin_before"
    if policy.limits.windows or policy.limits.otherwise is not None:
        yield "limits"
    if policy.load.low is not None or policy.load.high is not None or policy.load.latency is not None:
        yield "load"
    if policy.volumes != ("*",):
        yield "volumes"
    if policy.schedule.random_delay:
        yield "schedule.random_delay"
