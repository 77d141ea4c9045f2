"""How a VM is on its way to the next backup: its load, what remains, what is expected, and why it is as it is.

The ward asks it what to do, and tells it what was done. Decisions are the pure functions of ``load.governor`` and
``backup`` (selection, agenda, forecast); here they get their figures, and what they say is logged and kept.
"""

from __future__ import annotations

import operator
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart import blocks, errors, units
from headstart.backup import agenda, forecast, heat, plan
from headstart.backup.contact import Contact
from headstart.backup.forecast import Forecast
from headstart.backup.identify import Identified
from headstart.backup.planner import Outcome, Planner, Reported
from headstart.backup.report import BackupReport, PrecopyReport
from headstart.backup.transport import Transport
from headstart.blocks import Blocks
from headstart.host import log, memory
from headstart.host.calendar import Due
from headstart.host.gauge import Gauge
from headstart.host.house import House
from headstart.host.minutes import Levels, Minutes
from headstart.host.policy import Policy, limit_at
from headstart.hypervisor.counters import Counters
from headstart.load import governor as governors
from headstart.load import usual
from headstart.load.governor import Demand, Governor, Marks
from headstart.load.usual import Usual
from headstart.state.runs import Runs
from headstart.state.values import Completion, Tracked

#: What is usual is looked up so often.
USUAL_SECONDS = usual.STEP_SECONDS
#: Less than that, read in a window, tells nothing of the rate.
TELLING_BYTES = 16 * units.MIB
#: Latency may rise above what is usual (three quarters of the time) by this factor; and is bound to this where little
#: is known. Below the least nobody feels it.
LATENCY_FACTOR, LATENCY_SHARE = 1.5, 0.75
LATENCY_UNKNOWN, LATENCY_LEAST = 0.05, 0.002


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
        #: What rounds are planned for. Of a backup that failed: when it is tried again.
        self.due: Due | None = None
        #: Since when the backup is owed, or when the next one will be: whatever becomes of it, until it is made.
        self.owed = float("inf")
        self.remaining = 0
        self.gauge = Gauge(house.tally, house.sample, lambda: house.vault.interface)
        self.planner = Planner(disks=memory.load(house.series, name))
        self._minutes = Minutes(self._levels, lambda minute: house.series.add(name, minute))
        self._policy: Policy | None = None
        self._images: tuple[Path, ...] = ()
        self._bound: float | None = None
        self._usual_at = float("-inf")
        self._unread = 0
        #: When the next round is to begin; for which deadline, and after which round.
        self._plan: tuple[float, tuple[float | None, float | None]] | None = None
        #: Of the round under way: what it copies, how much of that is left, when it ends at the latest.
        self._chosen: Mapping[str, Blocks] = {}
        self._left = 0
        self._cut = float("inf")
        self._before: dict[str, tuple[int, int]] = {}
        #: Bytes a second, as read in the newest window.
        self._read_rate: float | None = None
        self._warned: tuple[str, ...] = ()
        self._remember()

    def _count_draft(self) -> None:
        """The journal knows what is in the draft, whoever copied it."""
        for name, known in self.planner.disks.items():
            known.drafted = self._house.journal.copied_count(self._name, name)

    def _remember(self) -> None:
        """What the journal tells of the time before this process."""
        self._count_draft()
        journal = self._house.journal
        point = journal.point(self._name)
        if point is not None:
            self.planner.since = point.created
        runs = Runs(journal).newest(self._name)
        self._read_rate = next(filter(None, (_read_rate(run.report) for run in runs)), None)
        for run in runs:
            if run.verb != "precopy" or not run.ended or "error" in run.report:
                continue
            if point is None or run.ended > point.created:
                self.planner.rotated, self.planner.ended = run.begun, run.ended
                self.planner.unfinished = bool(run.report.get("halted"))
                return

    @property
    def deferred(self) -> int:
        """Bytes that the newest round put off on purpose."""
        return self.planner.deferred

    # -- what it is told

    def expect(self, due: Due, policy: Policy, owed: float) -> None:
        self.due, self._policy, self.owed = due, policy, owed

    def plan_for(self, due: Due) -> None:
        """Rounds go by another moment than the backup that is owed."""
        self.due = due

    def renew(self, policy: Policy) -> None:
        """Its marks and limits hold from the next look on, also in the middle of a round. For any thread."""
        self._policy = policy

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
        self._left = max(0, self._left - count)
        self._house.tally.read(count)

    def _refresh(self, now: float) -> None:
        """What is usual: it changes slowly."""
        if time.monotonic() - self._usual_at < USUAL_SECONDS:
            return
        self._usual_at = time.monotonic()
        since, series = now - usual.KEPT * usual.STEP_SECONDS, self._house.series
        self.usual = Usual.of(series.loads(self._name, since, now, int(usual.STEP_SECONDS)))
        known = sorted(series.latencies(self._name, since, now))
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
        return Demand(self._left, seconds, min(given, default=None))

    def _share(self) -> float | None:
        """Of what all together may send to the store: what is read does not run ahead of that."""
        rate = self._house.store.rate
        return None if rate is None else rate / max(1, self._house.rounds.taken)

    # -- rounds

    def _deadline(self) -> float | None:
        return self.due.at if self.due is not None and self.due.at < float("inf") else None

    def next_round(self, now: float, policy: Policy) -> tuple[float, str]:
        """When to begin the next one (``now``: at once; infinity: not before the backup), and why not now."""
        self.planner.interval = policy.head_start.interval
        self.planner.begin_before = policy.head_start.begin_before
        at = self._planned(now, self.planner.next_round(now, self._deadline()))
        if at is None:
            return float("inf"), "what is left is copied by the backup"
        return at, f"next round in {units.format_seconds(max(0.0, at - now))}"

    def _planned(self, now: float, at: float | None) -> float | None:
        """The last round before a deadline begins when there is just enough time for it. Asked again then, the planner
        says that there is not: a round is begun as it was planned before."""
        situation = self._deadline(), self.planner.ended
        if at is None and self._plan is not None and self._plan[1] == situation:
            at = max(now, self._plan[0])
            if situation[0] is not None and at >= situation[0] - agenda.MARGIN:
                at = None
        self._plan = None if at is None else (at, situation)
        return at

    def choose(self, contact: Contact, identified: Identified, remaining: Mapping[str, Blocks]) -> dict[str, Blocks]:
        """What of a round is copied now."""
        now, journal = self._house.clock(), self._house.journal
        size = self.planner.block_size = contact.context.repository.block_size
        self._images = _images(identified.disks)
        none = Blocks()
        reported = {
            name: Reported(
                identified.recorded.get(name, none),
                identified.wasted.get(name, none),
                found,
                blocks.count_of(identified.disks[name].facts.size, size),
            )
            for name, found in remaining.items()
        }
        room = heat.HOST_BYTES // max(1, journal.disk_count())
        chosen = self.planner.choose(now, self._deadline(), reported, self._rank(), room)
        self._cut = self.planner.cut(now, self._deadline())
        self._before = {name: journal.copied_counts(self._name, name) for name in remaining}
        self._chosen, self.remaining = chosen, self.planner.remaining
        self._left = sum(map(len, chosen.values())) * size
        log.decision(
            self._name,
            round=identified.draft.rounds,
            dirty=log.size(sum(map(len, identified.reported.values())) * size),
            remaining=log.size(self.remaining),
            copying=log.size(self._left),
            deferred=log.size(self.deferred),
            load=self.governor.load,
            rate=log.rate(self.governor.rate),
            reason="; ".join(self.planner.reasons),
        )
        self._look_ahead(now)
        return chosen

    def _rank(self) -> float | None:
        load = self.governor.load
        return self.usual.rank(load) if self.usual.known and load is not None else None

    def over(self) -> bool:
        """The round has gone on for so long that a new one knows better."""
        return self._house.clock() >= self._cut

    def rounded(self, done: PrecopyReport) -> None:
        """A round is over."""
        counts, read = {}, 0
        for name, before in self._before.items():
            copied, filled = map(operator.sub, self._house.journal.copied_counts(self._name, name), before)
            counts[name], read = max(0, copied), read + max(0, filled)
        seconds = done.seconds - done.identify_seconds
        self.planner.copied(self._house.clock(), counts, self._chosen, seconds, read)
        self.remaining, self._left = done.remaining_bytes, 0
        self._count_draft()
        memory.keep(self._house.series, self._name, self.planner.disks)
        log.decision(
            self._name,
            round=done.round,
            copied=log.size(done.copied_bytes),
            remaining=log.size(done.remaining_bytes),
            took=log.seconds(done.seconds),
            by=done.transport if done.copied_bytes else None,
            halted=done.halted or None,
            notes="; ".join(done.notes) or None,
        )

    def broken(self) -> None:
        """A round failed, or was cancelled: what it was to copy does not wait for a whole interval."""
        self.planner.unfinished = True

    def _look_ahead(self, now: float) -> None:
        try:
            free = shutil.disk_usage(self._house.scratch).free
        except OSError:
            free = None
        self.forecast = self.planner.foresee(
            now, self._deadline(), self._rank(), audited=self._audited(), read_rate=self._read_rate, free=free
        )
        if self.forecast.reasons != self._warned:
            self._warned = self.forecast.reasons
            for reason in self._warned:
                log.warning(self._name, event="will-not-fit", reason=reason)

    def _audited(self) -> int:
        """Bytes that the backup compares in its window."""
        if self._policy is None:
            return 0
        size = self.planner.block_size
        disks = [blocks.count_of(each.facts.size, size) for each in self._house.journal.tracked(self._name).values()]
        delivered = self._policy.head_start.transports[:1] != (Transport.HOST,)
        return plan.sample_size(disks, self._policy.audit, delivered=delivered) * size

    # -- completions

    def completed(self, done: BackupReport) -> None:
        self._read_rate = _read_rate(done.json()) or self._read_rate
        self._over({disk.name: (disk.residue_bytes, disk.precopied_bytes) for disk in done.disks})
        if done.audit.agent_mismatched_bytes:
            trusted = "no" if self._house.journal.distrusted(self._name) else "yes"
            false = log.size(done.audit.agent_mismatched_bytes)
            log.warning(self._name, event="agent-false", snapshot=done.snapshot[:12], mismatched=false, trusted=trusted)
        if done.audit.appliance_mismatched_bytes:
            false = log.size(done.audit.appliance_mismatched_bytes)
            log.warning(self._name, event="appliance-false", snapshot=done.snapshot[:12], mismatched=false)
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

    def published(self, waiting: Completion, notes: Sequence[str]) -> None:
        """A backup whose point in time was over already: it is complete now, or was given up."""
        point = self._house.journal.point(self._name)
        if point is not None and point.snapshot == waiting.id:
            told = waiting.disks.items()
            self._over({name: (disk.residue_bytes, disk.precopied_bytes) for name, disk in told})
        log.decision(self._name, event="published", notes="; ".join(notes))

    def _over(self, read: Mapping[str, tuple[int, int]]) -> None:
        """A backup is complete: bytes of each disk in its residue, and from the draft."""
        size = self.planner.block_size
        outcomes = {name: Outcome(-(-residue // size), -(-ahead // size)) for name, (residue, ahead) in read.items()}
        self.planner.completed(self._house.clock(), outcomes)
        memory.keep(self._house.series, self._name, self.planner.disks)
        self.remaining = self._left = 0
        self.forecast = None

    def end(self) -> None:
        """The ward ends: what was measured is kept."""
        self._minutes.end()

    def _levels(self) -> Levels:
        return Levels(self.said.state, self.remaining, self.deferred)


def _read_rate(told: Mapping[str, Any]) -> float | None:
    """Of what a run came to; None: of no backup, or too little was read in its window to tell."""
    try:
        count = sum(disk["residue_bytes"] for disk in told["disks"]) + told["audit"]["sampled_bytes"]
        seconds = told["window_seconds"] - forecast.WINDOW_SECONDS
    except (KeyError, TypeError):
        return None
    return count / seconds if count >= TELLING_BYTES and seconds > 0 else None


def _images(tracked: Mapping[str, Tracked]) -> tuple[Path, ...]:
    return tuple(Path(each.facts.layers[0].path) for each in tracked.values() if each.facts.layers)
