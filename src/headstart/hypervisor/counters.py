"""What a VM has done so far, as its hypervisor counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many requests took how long: ``counts[n]`` less than ``bounds[n]`` seconds and not less than the bound before
    it. The last count, of which there is one more than of bounds, is of all that took longer."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DiskCounters:
    """What the guest asked of a disk since the VM was started or the disk plugged in; what is read from outside does
    not count. Seconds are the sum over all requests: two that wait at the same time count twice."""

    read_bytes: int
    written_bytes: int
    reads: int
    writes: int
    flushes: int
    read_seconds: float
    write_seconds: float
    flush_seconds: float
    write_latency: Histogram | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """``moment``: the host's ``time.monotonic``. ``cpu_seconds``: of all virtual CPUs together; None if that cannot be
    seen. ``disks`` are all with a medium, also those that are left out, by the names of ``Inventory``. ``pid``: of
    QEMU, if known."""

    moment: float
    cpu_seconds: float | None
    vcpus: int
    disks: Mapping[str, DiskCounters]
    pid: int | None = None
