"""The peace of the guest: what an fsync takes while blocks are copied ahead at a pace, against the same guest alone.

Spans alternate, so that what else the machine does falls on all alike: idle, idle again, copying. How far two idle
spans are apart is the noise of the machine.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import figure, spans
from bench.figure import Figure
from bench.spans import Span
from headstart.backup import cycle
from headstart.backup.contact import Contact
from headstart.backup.identify import Identified
from headstart.backup.transport import Transport
from headstart.blocks import Blocks
from headstart.load.governor import Governor, State
from headstart.load.throttle import Halted, Permit, Throttle
from headstart.units import MIB
from tests.e2e.rig import NAME, Rig
from tests.kit import disks, workloads
from tests.kit.vm import Vm

PAIRS = 20
SPAN_SECONDS = 4.0
#: Bytes a second; a little more than the 10 MB/s that it is about.
PACE = 10.5e6
SIZE = 1536 * MIB
#: A hundred fsyncs a second: a guest that has time for us.
RATE = 1.6 * MIB
IDLE = "idle guest"


class Gate:
    """A ``Pace``, and its ``Permit``: everything, evenly, while it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.ended = threading.Event()
        self.copied = 0
        self._throttle = Throttle(lambda: Governor(state=State.PACED, rate=PACE))

    def chosen(self, contact: Contact, identified: Identified, remaining: Mapping[str, Blocks]) -> dict[str, Blocks]:
        return {name: found for name, found in remaining.items() if name == "dev-data"}

    def permit(self, contact: Contact) -> Permit | None:
        return self

    def portion(self) -> int:
        return self._throttle.portion()

    def wait(self, count: int) -> None:
        while not self.open.wait(0.05):
            self.check()
        self._throttle.wait(count)
        self.copied += count

    def check(self) -> None:
        if self.ended.is_set():
            raise Halted("the measurement is over")
        self._throttle.check()


@dataclass(frozen=True, slots=True)
class Pair:
    """p99 in milliseconds; bytes a second."""

    idle: float
    again: float
    copying: float
    rate: float


def run(folder: Path, runs: int, say: Callable[[str], None]) -> list[Figure]:
    """``folder`` is made. ``runs`` are of ``PAIRS`` pairs for each transport."""
    folder.mkdir(parents=True)
    found = []
    data = disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data")
    work = disks.Disk(disks.make_empty(folder / "work.raw", 64 * MIB), "raw", "work")
    for transport in (Transport.AGENT, Transport.HOST):
        pairs = []
        for number in range(runs):
            say(f"fsync beside {PACE / 1e6:.1f} MB/s by the {transport.value}: run {number + 1} of {runs}")
            with Vm((data, work)) as vm:
                rig = Rig(folder / f"{transport.value}{number}", vm, agent=True)
                pairs += measure(vm, rig, transport, say)
        found += _figures(transport, pairs)
    return found


def measure(vm: Vm, rig: Rig, transport: Transport, say: Callable[[str], None], count: int = PAIRS) -> list[Pair]:
    gate = Gate()
    region = workloads.Region(vm.device("work"), 0, 32 * MIB)
    with workloads.churn(vm.guest, [region], rate=RATE, write_size=16 * 1024) as churn, rig.context() as context:
        churn.wait_changed(4 * MIB)
        copying = threading.Thread(target=cycle.precopy_round, args=(context, NAME, transport, gate))
        copying.start()
        gate.open.set()
        while gate.copied == 0 and copying.is_alive():
            time.sleep(0.1)
        gate.open.clear()
        time.sleep(1.0)
        try:
            return [_pair(churn, gate, say) for _ in range(count)]
        finally:
            gate.ended.set()
            copying.join()


def _pair(churn: workloads.Churn, gate: Gate, say: Callable[[str], None]) -> Pair:
    idle, again = _span(churn), _span(churn)
    before = gate.copied
    gate.open.set()
    copying = _span(churn)
    gate.open.clear()
    rate = (gate.copied - before) / SPAN_SECONDS
    time.sleep(0.5)
    say(f"  p99 {idle:.2f} ms, {again:.2f} ms, {copying:.2f} ms beside {rate / 1e6:.1f} MB/s")
    return Pair(idle, again, copying, rate)


def _span(churn: workloads.Churn) -> float:
    begin = time.monotonic()
    time.sleep(SPAN_SECONDS)
    span = Span(begin, time.monotonic())
    return spans.latencies(churn.samples(begin), span.overlaps).worst


def _figures(transport: Transport, pairs: list[Pair]) -> list[Figure]:
    """Ratios within pairs: what both have in common cancels out. Of the noise that to the larger side, which is above 1
    without any effect; that of the second idle span to the first is what to hold the copying against."""
    again = [pair.again / pair.idle for pair in pairs]
    noise = [max(pair.idle, pair.again) / min(pair.idle, pair.again) for pair in pairs]
    ratio = [pair.copying / ((pair.idle + pair.again) / 2) for pair in pairs]
    ones = [1.0] * len(pairs)
    by = f"by the {transport.value}"
    rate = [pair.rate / 1e6 for pair in pairs]
    return [
        figure.of(f"fsync p99 beside copying {by}, to the mean of two idle spans", ratio, ones, IDLE, "ratio"),
        figure.of(f"fsync p99, two idle spans, the second to the first, {by}", again, ones, IDLE, "ratio"),
        figure.of(f"fsync p99, two idle spans, the larger to the smaller, {by}", noise, ones, IDLE, "ratio"),
        figure.of(f"pace meanwhile, {by}", rate, [PACE / 1e6] * len(rate), "as ordered", "MB/s"),
    ]


if __name__ == "__main__":
    import shutil

    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    for each in run(target, 1, print):
        print(each.name, each.ours, each.peer)
