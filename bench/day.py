"""A compressed day: the guest changes its blocks, and the backup at the end of the day has had a head start, or not.

The rounds of a head start are read by the agent in the guest and by the host in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench import spans
from bench.scene import CHANGED_BYTES, VM_NAME, Scene
from bench.spans import Latencies, Sample, Span
from tests.kit.workloads import Churn

#: Seconds of the day before the first round: what an fsync takes in a guest that nobody backs up.
UNDISTURBED = 5.0
#: Seconds between the beginnings of two rounds.
ROUND_EVERY = 5.0
TOTAL = 2 * CHANGED_BYTES
#: A day takes half a minute on two cores; this is for machines that are far slower.
PATIENCE = 600.0

TRANSPORTS = ("agent", "host")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Round:
    """Times in seconds since the day began; the report is the product's."""

    begin: float
    end: float
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Day:
    seed: int
    #: The product's report.
    backup: dict[str, Any]
    window: Span
    rounds: tuple[Round, ...]
    #: Seconds since the day began and distinct bytes changed until then.
    progress: tuple[tuple[float, int], ...]
    began: float
    before: Latencies
    copying: Latencies
    #: Of the time while copying, by transport.
    by_transport: Mapping[str, Latencies]
    in_window: Latencies
    #: Bytes that the workload had on its disks when the backup was ordered, and when it was done.
    acknowledged: tuple[int, int]

    def sum(self, key: str) -> int:
        """Over the disks of the backup's report."""
        return sum(int(disk[key]) for disk in self.backup["disks"])

    def figures(self) -> dict[str, Any]:
        named = {"before": self.before, "copying": self.copying, "window": self.in_window}
        named |= {f"copying_{transport}": found for transport, found in self.by_transport.items()}
        return {
            "snapshot": self.backup["snapshot"],
            "changed_bytes": self.sum("changed_bytes"),
            "precopied_bytes": self.sum("precopied_bytes"),
            "residue_bytes": self.sum("residue_bytes"),
            "window_seconds": self.backup["window_seconds"],
            "freeze_seconds": self.backup["freeze_seconds"],
            "pause_seconds": self.backup["pause_seconds"],
            "seconds": self.backup["seconds"],
            "fsync_p50_ms": {name: found.p50 for name, found in named.items()},
            "fsync_p99_ms": {name: found.p99 for name, found in named.items()},
            "fsyncs": {name: found.count for name, found in named.items()},
        }


@dataclass(slots=True)
class _Course:
    """What happens in the course of a day."""

    scene: Scene
    churn: Churn
    began: float
    say: Say
    busy: list[Span] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    progress: list[tuple[float, int]] = field(default_factory=list)

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def changed(self) -> int:
        distinct = self.churn.stats(time.monotonic() - 5.0).distinct
        self.progress.append((self.now, distinct))
        return distinct

    def run(self, *arguments: str) -> dict[str, Any]:
        """A command of the product, and when it ran."""
        begin = time.monotonic()
        report = self.scene.headstart(*arguments)
        self.busy.append(Span(begin, time.monotonic()))
        return report

    def round(self) -> None:
        begin = self.now
        report = self.run("precopy", VM_NAME, "--transport", TRANSPORTS[len(self.rounds) % len(TRANSPORTS)])
        self.rounds.append(Round(begin, self.now, report))
        copied, identified = (report[key] >> 20 for key in ("copied_bytes", "identified_bytes"))
        by = report["transport"]
        self.say(f"  round {len(self.rounds)}: {identified} MiB had changed, {copied} MiB copied ahead by the {by}")

    def wait(self, until: float) -> None:
        """Until this second of the day, or until everything has been changed."""
        while self.now < until and self.changed() < TOTAL:
            time.sleep(max(0.0, min(1.0, until - self.now)))


def with_head_start(scene: Scene, seed: int, say: Say, *options: str) -> Day:
    """Rounds while the guest works; then the backup."""
    return _day(scene, seed, say, _rounds, *options)


def plain(scene: Scene, seed: int, say: Say) -> Day:
    """Nothing is copied ahead."""
    return _day(scene, seed, say, lambda course: course.wait(PATIENCE), "--plain")


def _rounds(course: _Course) -> None:
    following = UNDISTURBED
    while course.changed() < TOTAL and course.now < PATIENCE:
        course.wait(following)
        course.round()
        following = max(following + ROUND_EVERY, course.now)


def _day(scene: Scene, seed: int, say: Say, happen: Callable[[_Course], None], *options: str) -> Day:
    with scene.churn(seed) as churn:
        course = _Course(scene, churn, time.monotonic(), say)
        happen(course)
        if course.changed() < TOTAL:
            raise RuntimeError(f"the guest did not change {TOTAL} bytes in {PATIENCE:.0f} s")
        written_before = churn.stats().written
        report = course.run("backup", VM_NAME, *options)
        written_after = churn.stats().written
        window = spans.window(scene.vm, report["window_seconds"])
        samples = spans.add_pause(scene.vm, churn.samples(course.began), window, report["pause_seconds"])
    undisturbed = Span(course.began, course.busy[0].begin)
    return Day(
        seed=seed,
        backup=report,
        window=window,
        rounds=tuple(course.rounds),
        progress=tuple(course.progress),
        began=course.began,
        before=spans.latencies(samples, undisturbed.overlaps),
        copying=spans.latencies(samples, lambda sample: _copying(sample, course.busy, window)),
        by_transport={name: _latencies_by(name, samples, course, window) for name in TRANSPORTS if course.rounds},
        in_window=spans.latencies(samples, window.overlaps),
        acknowledged=(written_before, written_after),
    )


def _latencies_by(transport: str, samples: list[Sample], course: _Course, window: Span) -> Latencies:
    """While rounds of this transport were made."""
    busy = [
        Span(course.began + each.begin, course.began + each.end)
        for each in course.rounds
        if each.report["transport"] == transport
    ]
    return spans.latencies(samples, lambda sample: _copying(sample, busy, window))


def _copying(sample: Sample, busy: list[Span], window: Span) -> bool:
    """While the product works, but not in the window."""
    return any(span.overlaps(sample) for span in busy) and not window.overlaps(sample)
