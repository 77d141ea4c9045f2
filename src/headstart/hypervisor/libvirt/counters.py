"""What a guest has done so far, as libvirt counts it (``virConnectGetAllDomainStats``). It has no histograms."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import libvirt

from headstart import errors
from headstart.hypervisor.counters import Counters, DiskCounters
from headstart.hypervisor.libvirt import emulator
from headstart.hypervisor.libvirt.place import require_local
from headstart.wire.libvirt import Domain

_KINDS = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_VCPU | libvirt.VIR_DOMAIN_STATS_BLOCK
_OFF = (libvirt.VIR_DOMAIN_NOSTATE, libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)
_NANO = 1e-9
#: Who asks at the same time as somebody else gets no counters of disks: so often and after so long it asks again.
ATTEMPTS = 5
AGAIN_SECONDS = 0.02

Stats = Mapping[str, Any]


def look(uri: str, name: str) -> Counters:
    """Connect, ask, close. Raises ``Unreachable``, ``NotFound``, ``Usage``."""
    require_local(uri)
    with Domain(uri, name) as domain:
        return read(domain)


def read(domain: Domain) -> Counters:
    stats = _asked(domain)
    times = [stats.get(f"vcpu.{number}.time") for number in range(stats.get("vcpu.maximum", 0))]
    known = [each for each in times if each is not None]
    return Counters(
        moment=time.monotonic(),
        cpu_seconds=sum(known) * _NANO if known else None,
        vcpus=stats.get("vcpu.current", 0),
        disks=dict(_disks(stats)),
        pid=emulator.pid(domain.ask(lambda running: running.name())),
    )


def _asked(domain: Domain) -> Stats:
    for _ in range(ATTEMPTS):
        stats = domain.stats(_KINDS)
        if stats.get("state.state", libvirt.VIR_DOMAIN_NOSTATE) in _OFF:
            raise errors.Unreachable("The domain does not run: it has no counters.")
        if all(f"block.{number}.wr.bytes" in stats for number in range(stats.get("block.count", 0))):
            break
        time.sleep(AGAIN_SECONDS)
    return stats


def _disks(stats: Stats) -> Iterator[tuple[str, DiskCounters]]:
    for number in range(stats.get("block.count", 0)):
        name, prefix = stats.get(f"block.{number}.name"), f"block.{number}."
        if name and f"{prefix}wr.bytes" in stats:
            yield name, _disk({key.removeprefix(prefix): value for key, value in stats.items()})


def _disk(told: Stats) -> DiskCounters:
    """What libvirt does not tell is 0."""
    return DiskCounters(
        read_bytes=told.get("rd.bytes", 0),
        written_bytes=told.get("wr.bytes", 0),
        reads=told.get("rd.reqs", 0),
        writes=told.get("wr.reqs", 0),
        flushes=told.get("fl.reqs", 0),
        read_seconds=told.get("rd.times", 0) * _NANO,
        write_seconds=told.get("wr.times", 0) * _NANO,
        flush_seconds=told.get("fl.times", 0) * _NANO,
    )
