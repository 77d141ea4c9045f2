"""How long each write with its fsync took in a workload: written by the workload, read by the control program.

A file of fixed-size samples on the guest's tmpfs, so that a reader never stands in the way of the writer.
Times are the guest's ``time.monotonic()``. The clock of a VM under TCG stands still while QEMU is stopped.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

FORMAT = struct.Struct("<ddQQ")


class Sample(NamedTuple):
    """One write, or batch of writes, with its fsync. The sums count bytes since the workload began."""

    finished: float
    seconds: float
    written: int
    distinct: int


def path_of(workload: int) -> str:
    return f"/run/workload-{workload}.latency"


class Recorder:
    def __init__(self) -> None:
        self._fd = os.open(path_of(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, sample: Sample) -> None:
        os.write(self._fd, FORMAT.pack(*sample))


def samples(path: str, since: float | None, until: float | None) -> Iterator[Sample]:
    """Those that finished in ``[since, until)``."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return  # nothing has been written yet
    whole = len(data) - len(data) % FORMAT.size
    for sample in map(Sample._make, FORMAT.iter_unpack(data[:whole])):
        if (since is None or since <= sample.finished) and (until is None or sample.finished < until):
            yield sample


def summary(path: str, since: float | None, until: float | None) -> dict[str, Any]:
    """Count, latencies in seconds (None without a sample), and the sums at the end of the window."""
    chosen = list(samples(path, since, until))
    ordered = sorted(sample.seconds for sample in chosen)
    last = chosen[-1] if chosen else Sample(0, 0, 0, 0)
    return {
        "count": len(chosen),
        "p50": percentile(ordered, 0.50),
        "p99": percentile(ordered, 0.99),
        "longest": ordered[-1] if ordered else None,
        "written": last.written,
        "distinct": last.distinct,
    }


def percentile(ordered: list[float], share: float) -> float | None:
    """Nearest rank."""
    if not ordered:
        return None
    return ordered[math.ceil(share * len(ordered)) - 1]
