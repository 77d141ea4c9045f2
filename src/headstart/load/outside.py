"""The guest as its hypervisor sees it, from two looks at its counters.

Nothing of ours is subtracted: what the host reads is not among the guest's requests. What the agent in the guest does
is; while it reads, its own figures tell more (see ``inside`` and ``signals.together``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from headstart.hypervisor.counters import Counters, DiskCounters, Histogram
from headstart.load.signals import Signals, share

CPU, DISK = "guest.cpu", "guest.disk"
#: The latency is what so large a share of the writes stayed below: what nearly all of them feel. Single outliers, which
#: a host has without us too, do not count.
PERCENTILE = 0.95
#: Of fewer writes it is the mean, as well as where there is no histogram.
FEWEST = 20


def signals(before: Counters, after: Counters) -> Signals:
    """Nothing of two different processes, or where the clock did not go on."""
    elapsed = after.moment - before.moment
    if elapsed <= 0 or before.pid != after.pid:
        return Signals(after.moment, {}, missing=(CPU, DISK))
    values = {}
    cpu = _cpu(before, after)
    if cpu is not None:
        values[CPU] = share(cpu, elapsed * after.vcpus)
    done = _done(before, after)
    if done:
        values[DISK] = max(share(each.read_seconds + each.write_seconds + each.flush_seconds, elapsed) for each in done)
    missing = tuple(name for name in (CPU, DISK) if name not in values)
    return Signals(after.moment, values, _latency(done), missing)


def _cpu(before: Counters, after: Counters) -> float | None:
    """Seconds. A CPU that was unplugged takes its time with it."""
    if before.cpu_seconds is None or after.cpu_seconds is None or after.vcpus == 0:
        return None
    return after.cpu_seconds - before.cpu_seconds if after.cpu_seconds >= before.cpu_seconds else None


def _done(before: Counters, after: Counters) -> list[DiskCounters]:
    """Of each disk that was there all the time."""
    pairs = [(before.disks[name], new) for name, new in after.disks.items() if name in before.disks]
    return [done for old, new in pairs if (done := _difference(old, new)) is not None]


_SUMS = tuple(field.name for field in fields(DiskCounters) if field.name != "write_latency")


def _difference(old: DiskCounters, new: DiskCounters) -> DiskCounters | None:
    """None: another disk by the same name, whose counters began anew."""
    sums = {name: getattr(new, name) - getattr(old, name) for name in _SUMS}
    if min(sums.values()) < 0:
        return None
    return DiskCounters(**sums, write_latency=_later(old.write_latency, new.write_latency))


def _later(old: Histogram | None, new: Histogram | None) -> Histogram | None:
    if old is None or new is None or old.bounds != new.bounds:
        return None
    counts = tuple(b - a for a, b in zip(old.counts, new.counts, strict=True))
    return Histogram(new.bounds, counts) if min(counts) >= 0 else None


# -- latency


def _latency(done: Sequence[DiskCounters]) -> float | None:
    """Of writes or of flushes, which take longer: an fsync is both. Of all disks together; None without either."""
    flushes = sum(each.flushes for each in done)
    flushing = sum(each.flush_seconds for each in done) / flushes if flushes else None
    return max((each for each in (_writing(done), flushing) if each is not None), default=None)


def _writing(done: Sequence[DiskCounters]) -> float | None:
    writing = [each for each in done if each.writes]
    writes = sum(each.writes for each in writing)
    if not writes:
        return None
    joined = _joined([each.write_latency for each in writing])
    if joined is not None and sum(joined.counts) >= FEWEST:
        return percentile(joined, PERCENTILE)
    return sum(each.write_seconds for each in writing) / writes


def _joined(histograms: Sequence[Histogram | None]) -> Histogram | None:
    """None unless all have the same bounds."""
    known = [each for each in histograms if each is not None]
    if len(known) < len(histograms) or len({each.bounds for each in known}) != 1:
        return None
    return Histogram(known[0].bounds, tuple(map(sum, zip(*(each.counts for each in known), strict=True))))


def percentile(histogram: Histogram, part: float) -> float:
    """Seconds that ``part`` of the requests stayed below, if those between two bounds are spread evenly. Above the last
    bound nothing is known: then it is that one."""
    wanted = part * sum(histogram.counts)
    low = 0.0
    for high, count in zip(histogram.bounds, histogram.counts, strict=False):
        if count >= wanted and count:
            return low + (high - low) * wanted / count
        wanted -= count
        low = high
    return low
