"""The host: its CPUs, the disks that carry the images, the way to the store.

``sample`` looks, ``signals`` makes shares of two looks. Our own part (``Own``) is taken out in proportion::

    host.cpu           all but idle and iowait; less our CPU seconds
    host.disk          the busiest device, see ``disk``; ours by bytes: of all devices together, the same part of each
    host.network       the busier direction; less what we sent. Only where the speed of the card is known
    host.pressure.cpu  times the part of the busy CPU that is not ours
    host.pressure.io   times the part of the bytes that is not ours
    host.pressure.memory
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart.load import carriers, disk, network
from headstart.load.disk import Activity
from headstart.load.network import Network
from headstart.load.signals import Signals, share

CPU, DISK, NETWORK = "host.cpu", "host.disk", "host.network"
PRESSURES = {name: f"host.pressure.{name}" for name in ("cpu", "io", "memory")}
#: Places in a line of /proc/stat (proc(5)): guest time is in user time already.
_USER_TO_STEAL, _NOT_BUSY = slice(1, 9), slice(4, 6)


@dataclass(frozen=True, slots=True)
class Own:
    """What was done for our sake: by this process, by QEMU when it serves our reads, and by the agent in a guest."""

    cpu_seconds: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    sent_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of all CPUs together."""

    busy: float
    total: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters at a moment (``time.monotonic``). Disks by their names; pressures in seconds of stall."""

    moment: float
    cpu: Cpu | None
    disks: Mapping[str, Activity]
    network: Network | None
    pressures: Mapping[str, float]
    missing: tuple[str, ...] = ()


def signals(before: Sample, after: Sample, own: Own = Own()) -> Signals:
    """``own``: between the two."""
    elapsed = after.moment - before.moment
    if elapsed <= 0:
        return Signals(after.moment, {}, missing=(CPU, DISK, NETWORK, *PRESSURES.values()))
    cpu, done = _cpu(before.cpu, after.cpu), _activities(before.disks, after.disks)
    reads = share(own.read_bytes, sum(each.read_bytes for each in done))
    writes = share(own.written_bytes, sum(each.written_bytes for each in done))
    found = {
        CPU: share(cpu.busy - own.cpu_seconds, cpu.total) if cpu else None,
        DISK: max((share(disk.others(each, reads, writes), elapsed) for each in done), default=None),
        NETWORK: _network(before.network, after.network, own, elapsed),
        **_pressures(before, after, elapsed, cpu=_rest(cpu, own), io=1 - _ours(done, own)),
    }
    values = {name: value for name, value in found.items() if value is not None}
    missing = [name for name in (CPU, DISK, NETWORK, *PRESSURES.values()) if name not in values]
    return Signals(after.moment, values, missing=tuple(dict.fromkeys([*missing, *after.missing])))


def _cpu(before: Cpu | None, after: Cpu | None) -> Cpu | None:
    if before is None or after is None or after.total <= before.total:
        return None
    return Cpu(max(0.0, after.busy - before.busy), after.total - before.total)


def _activities(before: Mapping[str, Activity], after: Mapping[str, Activity]) -> list[Activity]:
    """Of the devices that were there all the time."""
    found = []
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        grown = Activity(
            new.busy - old.busy,
            new.reading - old.reading,
            new.writing - old.writing,
            None if new.flushing is None or old.flushing is None else new.flushing - old.flushing,
            new.read_bytes - old.read_bytes,
            new.written_bytes - old.written_bytes,
        )
        if min(grown.busy, grown.reading, grown.writing, grown.read_bytes, grown.written_bytes) >= 0:
            found.append(grown)
    return found


def _network(before: Network | None, after: Network | None, own: Own, elapsed: float) -> float | None:
    if before is None or after is None:
        return None
    received, sent = after.received - before.received, after.sent - before.sent - own.sent_bytes
    return share(max(received, sent), after.speed * elapsed)


def _rest(cpu: Cpu | None, own: Own) -> float:
    """The part of the CPU time that is not ours."""
    return 1 - share(own.cpu_seconds, cpu.busy) if cpu else 1.0


def _ours(done: Iterable[Activity], own: Own) -> float:
    """Our part of all bytes."""
    return share(own.read_bytes + own.written_bytes, sum(each.read_bytes + each.written_bytes for each in done))


def _pressures(before: Sample, after: Sample, elapsed: float, *, cpu: float, io: float) -> dict[str, float | None]:
    parts = {"cpu": cpu, "io": io, "memory": 1.0}
    both = before.pressures.keys() & after.pressures.keys()
    return {
        signal: share((after.pressures[name] - before.pressures[name]) * parts[name], elapsed)
        for name, signal in PRESSURES.items()
        if name in both
    }


# -- looking


def sample(paths: Iterable[Path], interface: str = "") -> Sample:
    """``paths``: images, or block devices. ``interface``: see ``network.interface_towards``; empty: the store is
    local."""
    found = carriers.activities(paths)
    return Sample(
        moment=time.monotonic(),
        cpu=_cpu_now(),
        disks=found.devices,
        network=network.look(interface) if interface else None,
        pressures={name: told for name in PRESSURES if (told := _stalled(name)) is not None},
        # If there are none at all, the signal is missing as a whole.
        missing=tuple(f"{DISK} of {path}" for path in found.without) if found.devices else (),
    )


def _cpu_now() -> Cpu | None:
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        ticks = [int(field) for field in first[_USER_TO_STEAL]]
        idle = sum(int(field) for field in first[_NOT_BUSY])
    except (OSError, ValueError):
        return None
    second = os.sysconf("SC_CLK_TCK")
    return Cpu((sum(ticks) - idle) / second, sum(ticks) / second)


def _stalled(name: str) -> float | None:
    """Linux, Documentation/accounting/psi.rst: the total is in microseconds. ``avg10`` would be ten seconds late."""
    try:
        some = Path(f"/proc/pressure/{name}").read_text().split("\n", 1)[0]
        return int(some.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None
