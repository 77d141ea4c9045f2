"""What a guest has done so far, as QEMU counts it: its disks, its CPUs.

Only what the guest's devices asked for counts (``blk_get_stats`` of the device's BlockBackend): an NBD export has a
BlockBackend of its own, so our reads are not among it. What a request waits for a copy before its write is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.hypervisor.counters import Counters, DiskCounters, Histogram
from headstart.hypervisor.qemu import inventory
from headstart.hypervisor.qemu.graph import Devices, Drive
from headstart.wire.qmp import CommandFailed, Qmp

_NANO = 1e-9
#: A look waits so long for its turn: a monitor serves one client, and may be serving a run of ours.
LOOK_SECONDS = 1.0
#: Bounds of our histograms, in nanoseconds: 0.1 ms to 10 s. Nobody else chooses the last one, by which ours are known.
_BOUNDS = [step * 10**power for power in range(5, 10) for step in (1, 2, 5)] + [10**10 + 1]
_HISTOGRAMS = ("rd_latency_histogram", "wr_latency_histogram", "flush_latency_histogram")
#: Places of utime and stime after the name in /proc/PID/stat (proc(5), fields 14 and 15).
_CPU_FIELDS = slice(11, 13)

Stats = Mapping[str, Any]


def look(monitor: Path) -> Counters:
    """Connect, ask, close; changes nothing. Raises ``Unreachable``, also while somebody else is connected."""
    with Qmp(monitor, greeting_seconds=LOOK_SECONDS) as qmp:
        return read(qmp, Devices(qmp))


def read(qmp: Qmp, devices: Devices) -> Counters:
    block, cpus = _asked(qmp)
    moment = time.monotonic()
    return Counters(
        moment=moment,
        cpu_seconds=_cpu_seconds(qmp.peer_pid, {cpu["thread-id"] for cpu in cpus}),
        vcpus=len(cpus),
        disks={name: _disk(entry["stats"]) for name, entry in _named(qmp, devices, block)},
        pid=qmp.peer_pid,
    )


def _asked(qmp: Qmp) -> tuple[Sequence[Stats], Sequence[Stats]]:
    block, cpus = qmp.batch([("query-blockstats", {}), ("query-cpus-fast", {})])
    for answer in (block, cpus):
        if isinstance(answer, CommandFailed):
            raise answer
    return block, cpus


def _named(qmp: Qmp, devices: Devices, block: Sequence[Stats]) -> Iterator[tuple[str, Stats]]:
    entries = [entry for entry in block if entry.get("node-name")]
    drives = [_drive(entry) for entry in entries]
    for name, drive, entry in zip(inventory.names(qmp, devices, drives), drives, entries, strict=True):
        if drive.qdev and not inventory.is_flash(drive):
            yield name, entry


def _drive(entry: Stats) -> Drive:
    return Drive(entry.get("device", ""), entry.get("qdev", ""), entry["node-name"], removable=False)


def _disk(stats: Stats) -> DiskCounters:
    return DiskCounters(
        read_bytes=stats["rd_bytes"],
        written_bytes=stats["wr_bytes"],
        reads=stats["rd_operations"],
        writes=stats["wr_operations"],
        flushes=stats["flush_operations"],
        read_seconds=stats["rd_total_time_ns"] * _NANO,
        write_seconds=stats["wr_total_time_ns"] * _NANO,
        flush_seconds=stats["flush_total_time_ns"] * _NANO,
        write_latency=_histogram(stats.get("wr_latency_histogram")),
    )


def _histogram(told: Stats | None) -> Histogram | None:
    if told is None:
        return None
    return Histogram(tuple(bound * _NANO for bound in told["boundaries"]), tuple(told["bins"]))


def _cpu_seconds(pid: int | None, threads: set[int]) -> float | None:
    """None where QEMU's threads cannot be seen: in another pid namespace, or of another user with hidepid."""
    try:
        return sum(_thread_seconds(Path(f"/proc/{pid}/task/{thread}/stat")) for thread in threads)
    except OSError:
        return None


def _thread_seconds(path: Path) -> float:
    # The name, in parentheses, may hold anything.
    fields = path.read_text(errors="replace").rpartition(")")[2].split()
    return sum(map(int, fields[_CPU_FIELDS])) / os.sysconf("SC_CLK_TCK")


# -- histograms


def keep_histograms(qmp: Qmp) -> None:
    """Where a device has none of any kind; somebody else's is used as it is."""
    wanted = [entry["qdev"] for entry in _devices(qmp) if not any(kind in entry["stats"] for kind in _HISTOGRAMS)]
    _set(qmp, [{"id": device, "boundaries-write": _BOUNDS} for device in wanted])


def drop_histograms(qmp: Qmp) -> None:
    """Ours. QEMU drops all of a device's at once, so not where somebody has added to them."""
    _set(qmp, [{"id": entry["qdev"]} for entry in _devices(qmp) if _is_ours(entry["stats"])])


def _devices(qmp: Qmp) -> list[Stats]:
    return [entry for entry in qmp.execute("query-blockstats") if entry.get("qdev") and entry.get("node-name")]


def _is_ours(stats: Stats) -> bool:
    there = [kind for kind in _HISTOGRAMS if kind in stats]
    return there == ["wr_latency_histogram"] and stats["wr_latency_histogram"]["boundaries"] == _BOUNDS


def _set(qmp: Qmp, orders: Sequence[Mapping[str, Any]]) -> None:
    """Best effort: a device may just have been unplugged."""
    qmp.batch([("block-latency-histogram-set", order) for order in orders])
