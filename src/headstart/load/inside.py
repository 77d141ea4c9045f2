"""The guest as its kernel sees it, from two figures of the agent's (docs/agent-protocol.md), less what the agent took.

All of it is the guest's word: what is no sensible number is not there. A guest that lies about its load is copied when
it is busy, or not ahead of time at all, and has only itself to blame.

::

    guest.cpu          all but idle and iowait, niced work too; less the agent's CPU and its ``INTERRUPTS``
    guest.iowait       less the time that the agent waited for its reads
    guest.disk         the busiest disk, see ``disk``; the agent's reads by bytes
    guest.network      the busier direction; less what the agent sent over it. Only where the kernel knows the speed
    guest.pressure.*   share of the time in which somebody was stalled, from the sum of it: ``avg10`` would be ten
                       seconds late. Of cpu times the part of the busy CPU that is not the agent's; of io see
                       ``_without``
    guest.silence      1 while expected figures do not come
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.load import disk
from headstart.load.disk import Activity
from headstart.load.signals import Signals, share

CPU, IOWAIT, DISK, NETWORK = "guest.cpu", "guest.iowait", "guest.disk", "guest.network"
PRESSURES = {name: f"guest.pressure.{name}" for name in ("cpu", "io", "memory")}
SILENCE = "guest.silence"
NAMES = (CPU, IOWAIT, DISK, NETWORK, *PRESSURES.values())
#: Figures that are expected every second and do not come for so long: the agent, at the lowest priority, gets no CPU.
SILENCE_SECONDS = 2.0
#: Figures of two moments further apart are not compared.
LONGEST = 3600.0
#: Numbers beyond this are none of a kernel's.
_MOST = 2.0**63
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
_CPU = (*_BUSY, "idle", "iowait")
#: The end of each of our requests is an interrupt, which the kernel does not count as ours: a fifth to a quarter of the
#: agent's own CPU time with two CPUs (TCG, 20 MB/s). What is above that part of it is the guest's.
INTERRUPTS = 0.25
#: While our reads take more of the time than this leaves, what is hidden behind them is not extrapolated any further.
LEAST_REST = 0.25

Figures = Mapping[str, Any]


def silence(moment: float, heard: float, limit: float = SILENCE_SECONDS) -> Signals:
    """``heard``: when figures came last, or began to be expected, by the host's ``time.monotonic``. Only while the host
    has taken in what arrives (``Agent.pump``, a read under way)."""
    return Signals(moment, {SILENCE: 1.0 if moment - heard > limit else 0.0})


def signals(moment: float, before: Figures, after: Figures) -> Signals:
    """``moment``: when ``after`` came, by the host's ``time.monotonic``."""
    elapsed = _growth(before, after, "time")
    if elapsed is None or not 0 < elapsed <= LONGEST:
        return Signals(moment, {}, missing=NAMES)
    own, cpu = _own(_table(before, "own"), _table(after, "own")), _cpu_of(before, after)
    found = {
        **(_cpu(cpu, own) if cpu else {}),
        DISK: _disk(before, after, own, elapsed),
        NETWORK: _network(before, after, own, elapsed),
        **_pressures(before, after, elapsed, cpu=cpu, own=own),
    }
    values = {name: value for name, value in found.items() if value is not None}
    return Signals(moment, values, missing=tuple(name for name in NAMES if name not in values))


# -- the guest's word


def _table(told: Any, *names: str) -> Figures:
    """What is no table is an empty one."""
    for name in names:
        told = told.get(name) if isinstance(told, Mapping) else None
    return told if isinstance(told, Mapping) else {}


def _number(told: Figures, name: str) -> float | None:
    value = told.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _MOST:
        return None
    return float(value)


def _growth(before: Figures, after: Figures, name: str) -> float | None:
    """None: not told, or begun anew."""
    old, new = _number(before, name), _number(after, name)
    return new - old if old is not None and new is not None and new >= old else None


def _growths(before: Figures, after: Figures) -> dict[str, float]:
    """Of a table that holds only what has grown."""
    names = [name for name in after if isinstance(name, str)]
    found = {
        name: _growth(before, after, name) if name in before else _growth({name: 0}, after, name) for name in names
    }
    return {name: value for name, value in found.items() if value}


# -- what the agent took


@dataclass(frozen=True, slots=True)
class _Own:
    """In the interval. Reads by device."""

    cpu_seconds: float
    sent_bytes: float
    read_bytes: Mapping[str, float]
    read_seconds: Mapping[str, float]

    @property
    def waited(self) -> float:
        """The agent does one thing at a time."""
        return sum(self.read_seconds.values())


def _own(before: Figures, after: Figures) -> _Own:
    return _Own(
        cpu_seconds=_growth(before, after, "cpu_seconds") or 0.0,
        sent_bytes=_growth(before, after, "sent_bytes") or 0.0,
        read_bytes=_growths(_table(before, "read_bytes"), _table(after, "read_bytes")),
        read_seconds=_growths(_table(before, "read_seconds"), _table(after, "read_seconds")),
    )


# -- signals


@dataclass(frozen=True, slots=True)
class _Cpu:
    """Seconds of all CPUs together."""

    busy: float
    interrupts: float
    waiting: float
    total: float


def _cpu_of(before: Figures, after: Figures) -> _Cpu | None:
    """``iowait`` may go back a little (proc(5))."""
    old, new = _table(before, "cpu"), _table(after, "cpu")
    grown = {name: _growth(old, new, name) or 0.0 for name in _CPU}
    ticks = _number(after, "ticks")
    if not ticks or not any(grown.values()):
        return None
    busy = sum(grown[name] for name in _BUSY)
    interrupts = grown["irq"] + grown["softirq"]
    return _Cpu(busy / ticks, interrupts / ticks, grown["iowait"] / ticks, sum(grown.values()) / ticks)


def _cpu(cpu: _Cpu, own: _Own) -> dict[str, float]:
    ours = own.cpu_seconds + min(cpu.interrupts, INTERRUPTS * own.cpu_seconds)
    return {CPU: share(cpu.busy - ours, cpu.total), IOWAIT: share(cpu.waiting - own.waited, cpu.total)}


def _disk(before: Figures, after: Figures, own: _Own, elapsed: float) -> float | None:
    done = _activities(before, after)
    ours = _shares(done, own.read_bytes)
    busy = [share(disk.others(each, own_reads=ours[name]), elapsed) for name, each in done.items()]
    return max(busy, default=None)


def _shares(done: Mapping[str, Activity], read: Mapping[str, float]) -> dict[str, float]:
    """Our part of the bytes read of each disk. What was read through a volume may lie on any of them."""
    through = sum(count for name, count in read.items() if name not in done)
    rest = {name: max(0.0, each.read_bytes - read.get(name, 0.0)) for name, each in done.items()}
    elsewhere = share(through, sum(rest.values()))
    return {
        name: share(min(each.read_bytes, read.get(name, 0.0)) + elsewhere * rest[name], each.read_bytes)
        for name, each in done.items()
    }


def _activities(before: Figures, after: Figures) -> dict[str, Activity]:
    """Disks that were there all the time."""
    old, new = _table(before, "disks"), _table(after, "disks")
    found = {name: _activity(_table(old, name), _table(new, name)) for name in new if isinstance(name, str)}
    return {name: each for name, each in found.items() if each is not None}


def _activity(before: Figures, after: Figures) -> Activity | None:
    names = ("busy_ms", "read_ms", "write_ms", "read_bytes", "written_bytes")
    told = [_growth(before, after, name) for name in names]
    known = [value for value in told if value is not None]
    if len(known) < len(names):
        return None
    busy, reading, writing, read_bytes, written_bytes = known
    flushing = _growth(before, after, "flush_ms")
    flushed = None if flushing is None else flushing / 1e3
    return Activity(busy / 1e3, reading / 1e3, writing / 1e3, flushed, read_bytes, written_bytes)


def _network(before: Figures, after: Figures, own: _Own, elapsed: float) -> float | None:
    old, new = _table(before, "network"), _table(after, "network")
    received, sent, speed = _growth(old, new, "received"), _growth(old, new, "sent"), _number(new, "speed")
    if received is None or sent is None or not speed:
        return None
    return share(max(received, sent - own.sent_bytes), speed * elapsed)


def _pressures(
    before: Figures, after: Figures, elapsed: float, *, cpu: _Cpu | None, own: _Own
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, signal in PRESSURES.items():
        stalled = _growth(_table(before, "pressure", name), _table(after, "pressure", name), "total")
        if stalled is not None:
            found[signal] = share(stalled / 1e6, elapsed)
    if cpu is not None and (waited := found.get(PRESSURES["cpu"])) is not None:
        # The agent, at the lowest priority, waits for the kernel's work on what it reads itself.
        found[PRESSURES["cpu"]] = waited * (1 - share(own.cpu_seconds, cpu.busy))
    if (waited := found.get(PRESSURES["io"])) is not None:
        found[PRESSURES["io"]] = _without(waited, share(own.waited, elapsed))
    return found


def _without(stalled: float, ours: float) -> float:
    """The agent's waiting for its reads is a stall as well, and hides those of others at the same time. If theirs are
    as frequent during our reads as they are between them::

        stalled = ours + (1 - ours) * theirs
    """
    return share(stalled - ours, max(LEAST_REST, 1 - ours))
