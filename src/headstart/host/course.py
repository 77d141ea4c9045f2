"""How a VM is on its way to the next backup: its load, what remains, what is expected, and why it is as it is.

The ward asks it what to do, and tells it what was done. Decisions are the pure functions of ``load.governor`` and
``backup`` (choice, agenda, forecast); here they get their figures, and what they say is logged and kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from headstart import errors, units
from headstart.backup import agenda, choice, heat
from headstart.backup.choice import Situation
from headstart.backup.contact import Contact
from headstart.backup.forecast import Forecast
from headstart.backup.identify import Identified
from headstart.backup.report import BackupReport, PrecopyReport
from headstart.blocks import Blocks
from headstart.host import log
from headstart.host.calendar import Due
from headstart.host.gauge import Gauge
from headstart.host.house import House
from headstart.host.memory import Memory
from headstart.host.minutes import Levels, Minutes
from headstart.host.policy import Policy, limit_at
from headstart.hypervisor.contract import Counters
from headstart.load import governor as governors
from headstart.load import usual
from headstart.load.governor import Demand, Governor, Marks
from headstart.load.usual import Usual
from headstart.state.values import Tracked

#: What is usual is looked up so often.
USUAL_SECONDS = usual.STEP_SECONDS
#: Latency may rise above what is usual (three quarters of the time) by this factor; and is bound to this where little
#: is known. Below the least nobody feels it.
LATENCY_FACTOR, LATENCY_SHARE = 1.5, 0.75
LATENCY_UNKNOWN, LATENCY_LEAST = 0.05, 0.002
#: A rate is remembered for so long: what a small round shows is not the most that is possible.
REMEMBERED = 0.9
#: Seconds that rounds stay apart, also where one was not finished.
LEAST = agenda.LEAST


@dataclass(frozen=True, slots=True)
class Said:
    """What people are told of a VM."""

    state: str
    reason: str


class Course:
    """Used by the ward's thread; ``said``, ``forecast``, ``governor``, ``load`` and the figures may be read by any."""

    def __init__(self, house: House, name: str) -> None:
        self._house = house
        self._name = name
        self.governor = Governor()
        self.marks = Marks()
        self.usual = Usual()
        self.said = Said("waiting", "it was not looked at yet")
        self.reachable = False
        self.forecast: Forecast | None = None
        self.due: Due | None = None
        self.disks: tuple[str, ...] = ()
        self.remaining = self.deferred = 0
        self.rate: float | None = None
        self.gauge = Gauge(house.tally, house.sample)
        self._memory = Memory(house.series, name, units.BLOCK_SIZE)
        self._minutes = Minutes(self._levels, lambda minute: house.series.add(name, minute))
        self._policy: Policy | None = None
        self._images: tuple[Path, ...] = ()
        self._bound: float | None = None
        self._usual_at = float("-inf")
        self._unread = 0
        self._ended = self._last_round()
        self._rotated = self._ended or 0.0
        self._unfinished = False
        self._chosen = 0
        self._before: dict[str, int] = {}
        self._warned: tuple[str, ...] = ()

    def _last_round(self) -> float | None:
        """When the newest round since the last backup ended, if this host remembers one."""
        journal = self._house.journal
        point = journal.point(self._name)
        for run in journal.runs(self._name):
            if run.verb == "precopy" and run.ended and (point is None or run.ended > point.created):
                return run.ended
        return None

    # -- what it is told

    def expect(self, due: Due, policy: Policy) -> None:
        self.due, self._policy = due, policy

    def say(self, state: str, reason: str) -> None:
        before, self.said = self.said, Said(state, reason)
        if state != before.state:
            log.decision(self._name, state=state, load=self.governor.load, reason=reason)

    def unreachable(self, reason: str) -> None:
        self.reachable = False
        self._sense(None)
        self.say("unreachable", reason)

    def look(self, counters: Counters) -> None:
        """The VM, while nothing of it is copied."""
        self.reachable = True
        self.disks = tuple(counters.disks)
        tracked = self._house.journal.tracked(self._name)
        self._images = _images(tracked)
        self._sense(counters)

    def govern(self, contact: Contact) -> Governor:
        """The same while a round of it copies."""
        try:
            counters = contact.machine.counters()
        except errors.HeadstartError:
            # Whoever reads will find out what is wrong.
            counters = None
        before = self.governor.state
        self._sense(counters, contact)
        if self.governor.state is not before:
            state, rate = self.governor.state.value, log.rate(self.governor.rate)
            log.decision(self._name, state=state, load=self.governor.load, rate=rate, reason=self.governor.reason)
        self.said = Said(self.governor.state.value, self.governor.reason)
        return self.governor

    def _sense(self, counters: Counters | None, contact: Contact | None = None) -> None:
        now = self._house.clock()
        self._refresh(now)
        agent = contact.inside.connected if contact is not None else None
        signals = self.gauge.look(counters, self._images, agent)
        reading = self.gauge.reading(signals, self._bound)
        self.governor = governors.step(self.governor, reading, self._demand(now), self.marks)
        self._minutes.add(now, reading.load, reading.latency, self._taken())

    def _taken(self) -> int:
        taken, self._unread = self._unread, 0
        return taken

    def read(self, count: int) -> None:
        """So many bytes are being read ahead."""
        self._unread += count
        self._chosen = max(0, self._chosen - count)
        self._house.tally.read(count)

    def _refresh(self, now: float) -> None:
        """What is usual: it changes slowly."""
        if time.monotonic() - self._usual_at < USUAL_SECONDS:
            return
        self._usual_at = time.monotonic()
        since, series = now - usual.KEPT * usual.STEP_SECONDS, self._house.series
        self.usual = Usual.of(series.loads(self._name, since, int(usual.STEP_SECONDS)))
        known = sorted(series.latencies(self._name, since))
        enough = len(known) >= usual.FEWEST
        typical = usual.percentile(known, LATENCY_SHARE) if enough else LATENCY_UNKNOWN / LATENCY_FACTOR
        self._bound = max(LATENCY_LEAST, LATENCY_FACTOR * typical)

    def _demand(self, now: float) -> Demand:
        policy, due = self._policy, self.due
        if policy is None or due is None:
            return Demand(0)
        load = policy.load
        shares = (load.low_percentile / 100, load.high_percentile / 100)
        self.marks = governors.marks_of(self.usual, load.low, load.high, shares)
        if load.latency is not None:
            self._bound = load.latency
        limits = [limit_at(policy.limits, datetime.fromtimestamp(now, UTC)), self._share()]
        given = [limit for limit in limits if limit is not None]
        seconds = due.at - now if due.at < float("inf") else None
        return Demand(self._chosen, seconds, min(given, default=None))

    def _share(self) -> float | None:
        """Of what all together may send to the store: what is read does not run ahead of that."""
        rate = self._house.store.rate
        return None if rate is None else rate / max(1, self._house.rounds.taken)

    # -- rounds

    def next_round(self, now: float, due: Due, policy: Policy) -> tuple[float, str]:
        """When to begin the next one (``now``: at once; infinity: not before the backup), and why not now."""
        deadline = due.at if due.at < float("inf") else None
        ended, wanted = self._ended, policy.head_start.interval
        if ended is not None and ended > now:
            # The clock was put back.
            ended = self._ended = self._rotated = now
        if ended is not None:
            wanted = LEAST if self._unfinished else max(LEAST, self._rotated + wanted - ended)
        coming = self.deferred + self._memory.dirtied_within(2 * LEAST)
        seconds = agenda.duration(coming, self.rate)
        if deadline is not None:
            seconds = min(seconds, max(0.0, deadline - now) / 2)
        at = agenda.next_round(
            now, deadline, ended, interval=wanted, begin_before=policy.head_start.begin_before, seconds=seconds
        )
        if at is None:
            return float("inf"), "what is left is copied by the backup"
        return at, f"next round in {units.format_seconds(max(0.0, at - now))}"

    def situation(self, now: float) -> Situation:
        due, load = self.due, self.governor.load
        deadline = due.at if due is not None and due.at < float("inf") else None
        rank = self.usual.rank(load) if self.usual.known and load is not None else None
        return Situation(now, deadline, self.remaining, self.rate, rank)

    def choose(self, contact: Contact, identified: Identified, remaining: Mapping[str, Blocks]) -> dict[str, Blocks]:
        """What of a round is copied now."""
        now, size = self._house.clock(), contact.context.repository.block_size
        self._rotated, self._unfinished = now, False
        self._images = _images(identified.disks)
        room = heat.HOST_BYTES // max(1, self._house.journal.disk_count())
        self._memory.forget_others(remaining)
        self.remaining = sum(map(len, remaining.values())) * size
        situation = self.situation(now)
        chosen: dict[str, Blocks] = {}
        reasons: dict[str, None] = {}
        for name, blocks in remaining.items():
            recorded, wasted = identified.recorded.get(name, Blocks()), identified.wasted.get(name, Blocks())
            known = self._memory.seen(name, recorded, wasted, now, room)
            found = choice.choose(blocks, known.heat, known.learned, situation, size)
            chosen[name], known.remaining = found.now, found.later
            self._unfinished = self._unfinished or found.unfinished
            reasons[found.reason] = None
        self._before = {name: contact.context.journal.copied_count(self._name, name) for name in remaining}
        self._chosen = sum(map(len, chosen.values())) * size
        self.deferred = self.remaining - self._chosen
        dirty_bytes = sum(map(len, identified.dirty.values())) * size
        log.decision(
            self._name,
            round=identified.draft.rounds,
            dirty=log.size(dirty_bytes),
            remaining=log.size(self.remaining),
            copying=log.size(self._chosen),
            deferred=log.size(self.deferred),
            load=self.governor.load,
            rate=log.rate(self.governor.rate),
            reason="; ".join(reasons),
        )
        self._look_ahead(now)
        return chosen

    def rounded(self, done: PrecopyReport) -> None:
        """A round is over."""
        self._ended = self._house.clock()
        self.remaining = done.remaining_bytes
        for name, before in self._before.items():
            drafted = self._house.journal.copied_count(self._name, name)
            self._memory.copied(name, max(0, drafted - before), drafted)
        self._unfinished = self._unfinished or bool(done.halted)
        seconds = done.seconds - done.identify_seconds
        if done.copied_bytes and seconds > 0:
            self.rate = max(done.copied_bytes / seconds, REMEMBERED * (self.rate or 0.0))
        self._chosen = 0
        self._memory.keep()
        log.decision(
            self._name,
            round=done.round,
            copied=log.size(done.copied_bytes),
            remaining=log.size(done.remaining_bytes),
            took=log.seconds(done.seconds),
            by=done.transport,
            halted=done.halted or None,
            notes="; ".join(done.notes) or None,
        )

    def _look_ahead(self, now: float) -> None:
        situation = self.situation(now)
        self._memory.expect(situation)
        try:
            free = shutil.disk_usage(self._house.scratch).free
        except OSError:
            free = None
        self.forecast = self._memory.foresee(situation, free)
        if self.forecast.reasons != self._warned:
            self._warned = self.forecast.reasons
            for reason in self._warned:
                log.warning(self._name, event="will-not-fit", reason=reason)

    # -- completions

    def completed(self, done: BackupReport) -> None:
        for disk in done.disks:
            blocks = [-(-count // units.BLOCK_SIZE) for count in (disk.residue_bytes, disk.precopied_bytes)]
            self._memory.completed(disk.name, *blocks)
        self._memory.keep()
        self.remaining = self.deferred = self._chosen = 0
        self._ended, self._unfinished, self.forecast = None, False, None
        log.decision(
            self._name,
            event="backup",
            snapshot=done.snapshot[:12],
            changed=log.size(sum(disk.changed_bytes for disk in done.disks)),
            ahead=log.size(sum(disk.precopied_bytes for disk in done.disks)),
            residue=log.size(sum(disk.residue_bytes for disk in done.disks)),
            window=log.seconds(done.window_seconds),
            took=log.seconds(done.seconds),
            consistency=done.consistency,
            failures="; ".join(done.failures) or None,
            notes="; ".join(done.notes) or None,
        )

    def end(self) -> None:
        """The ward ends: what was measured is kept."""
        self._minutes.end()

    def _levels(self) -> Levels:
        return Levels(self.said.state, self.remaining, self.deferred)


def _images(tracked: Mapping[str, Tracked]) -> tuple[Path, ...]:
    return tuple(Path(each.facts.layers[0].path) for each in tracked.values() if each.facts.layers)
