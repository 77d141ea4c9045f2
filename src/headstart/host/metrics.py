"""What Prometheus asks a host for: each VM, what waits for its turn, how it stands with the server.

Names begin with ``headstart_host_``. All is looked up when it is asked for; the journal is read from where it was read
last.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headstart import __version__, errors
from headstart.host import view
from headstart.host.caretaker import Caretaker
from headstart.host.house import House
from headstart.host.ward import Ward
from headstart.restore.serving.places import Tcp
from headstart.state.journal import Journal
from headstart.state.runs import Runs
from headstart.state.values import Run

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_log = logging.getLogger("headstart.host")

#: Of a VM that was not looked at before.
_RUNS = 30
#: By our keys of a report: sums over the disks.
_SUMS = ("changed_bytes", "precopied_bytes", "residue_bytes", "stored_bytes")

Row = tuple[tuple[str, ...], float]


class Host(Protocol):
    """What the daemon has for it."""

    house: House
    wards: dict[str, Ward]
    caretaker: Caretaker

    def hangs(self, name: str) -> bool: ...

    def server(self) -> dict[str, Any] | None: ...


@contextlib.contextmanager
def serving(host: Host, place: Tcp | None) -> Iterator[int]:
    """On a thread of its own, until the block ends. The port; 0 where nobody wants it. Raises ``Usage``."""
    if place is None:
        yield 0
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(Collector(host))
    try:
        server, thread = start_http_server(place.port, place.host, registry)
    except OSError as error:
        raise errors.Usage(f"'metrics' in [host]: {place.host}:{place.port}: {error.strerror}.") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(slots=True)
class _Known:
    """Of a VM's journal: up to which run it was read."""

    number: int = 0
    success: Run | None = None
    #: Of the newest run that published something; one that was spooled may be reported by another one.
    published: int = 0
    failure: Run | None = None
    failures: int = 0


class Collector:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, _Known] = {}

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        wards = dict(self._host.wards)
        self._known = {name: known for name, known in self._known.items() if name in wards}
        yield _family("info", "This release.", ("version",), [((__version__,), 1.0)])
        yield from self._of_journal(wards)
        views = {name: view.of(ward, self._host.hangs(name)) for name, ward in sorted(wards.items())}
        yield from _of_views(views)
        yield from self._of_house(views)
        yield from _of_server(self._host.server(), self._host.house.clock())

    def _of_journal(self, wards: Mapping[str, Ward]) -> Iterator[Metric]:
        now = self._host.house.clock()
        try:
            known = {name: self._read(name) for name in sorted(wards)}
        except errors.HeadstartError as error:
            _log.warning("The state cannot be read for the metrics: %s", error)
            known = {}
        reports = {name: each.success.report for name, each in known.items() if each.success is not None}
        moments = {name: _number(report.get("created")) for name, report in reports.items()}
        yield _of_vms("vm_last_success_timestamp_seconds", "Point in time of the newest backup.", moments)
        ages = {name: None if moment is None else now - moment for name, moment in moments.items()}
        yield _of_vms("vm_age_seconds", "Of the newest backup.", ages)
        windows = {name: _number(report.get("window_seconds")) for name, report in reports.items()}
        yield _of_vms("vm_window_seconds", "Window of the newest backup.", windows)
        for key in _SUMS:
            sums = {name: _sum(report, key) for name, report in reports.items()}
            yield _of_vms(f"vm_{key}", _TOLD[key], sums)
        yield _of_vms(
            "vm_ahead_ratio", "Of what changed, copied before the window.", {n: _ahead(r) for n, r in reports.items()}
        )
        failed = {name: each.failure.ended if each.failure else None for name, each in known.items()}
        yield _of_vms("vm_last_failure_timestamp_seconds", "When a backup failed last.", failed)
        failing = {name: float(_is_failing(each)) for name, each in known.items()}
        yield _of_vms("vm_failing", "Whether the newest backup failed.", failing)
        counts = {name: float(each.failures) for name, each in known.items()}
        yield _of_vms("vm_failures", "Backups that failed, as far as they were looked at.", counts)

    def _read(self, vm: str) -> _Known:
        known = self._known.setdefault(vm, _Known())
        for run in reversed(newest_backups(self._host.house.journal, vm, known.number)):
            known.number = max(known.number, run.number)
            if "error" in run.report:
                known.failure, known.failures = run, known.failures + 1
            elif "snapshot" in run.report:
                known.published = run.number
                known.success = run if "created" in run.report else known.success
        return known

    def _of_house(self, views: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
        house = self._host.house
        slots = (("precopy", house.rounds), ("backup", house.backups))
        queue = [((verb,), float(each.waiting)) for verb, each in slots]
        yield _family("queue", "VMs that wait for their turn.", ("verb",), queue)
        yield _family(
            "working", "VMs whose turn it is.", ("verb",), [((verb,), float(each.taken)) for verb, each in slots]
        )
        yield _family("vms", "VMs under protection.", (), [((), float(len(views)))])
        failing = [((), float(self._host.caretaker.failing))]
        yield _family("forget_failing", "Whether what was due to be forgotten or freed was not.", (), failing)


_TOLD = {
    "changed_bytes": "Changed before the newest backup.",
    "precopied_bytes": "Of these, copied ahead.",
    "residue_bytes": "Read inside the window of the newest backup.",
    "stored_bytes": "Put into the store for the newest backup.",
}


def newest_backups(journal: Journal, vm: str, after: int) -> list[Run]:
    """Those that are over and have a higher number, newest first."""
    return [run for run in Runs(journal).backups(vm, after, _RUNS) if run.ended is not None]


def _is_failing(known: _Known) -> bool:
    return known.failure is not None and known.failure.number > known.published


def _of_views(views: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    figures: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Any]], ...] = (
        ("vm_remaining_bytes", "Changed, and not copied ahead yet.", lambda each: each["remaining_bytes"]),
        ("vm_deferred_bytes", "Of these, put off on purpose.", lambda each: each["deferred_bytes"]),
        ("vm_load_ratio", "Load, as a share of what it can do.", lambda each: each["load"]),
        ("vm_rate_bytes_per_second", "Rate at which it may be copied ahead just now.", lambda each: each["rate"]),
        ("vm_due_timestamp_seconds", "When the next backup is due.", lambda each: each["due"]),
        ("vm_missed", "Whether a backup was missed.", lambda each: each["missed"]),
        ("vm_hangs", "Whether it is not heard of.", lambda each: each["state"] == "hangs"),
    )
    for name, told, of in figures:
        yield _of_vms(name, told, {vm: _number(of(each)) for vm, each in views.items()})
    likely = {
        vm: _number((each["forecast"] or {}).get("window_seconds", {}).get("likely")) for vm, each in views.items()
    }
    yield _of_vms("vm_expected_window_seconds", "Window that is expected of the next backup.", likely)
    states = [((vm, str(each["state"])), 1.0) for vm, each in views.items()]
    yield _family("vm_state", "What it does: 1 for the state it is in.", ("vm", "state"), states)


def _of_server(found: Mapping[str, Any] | None, now: float) -> Iterator[Metric]:
    if found is None:
        return
    yield _family("server_connected", "Whether the server answers.", (), [((), float(found["state"] == "connected"))])
    if found.get("seen") is not None:
        seconds = 0.0 if found["state"] == "connected" else max(0.0, now - float(found["seen"]))
        yield _family("server_silence_seconds", "Since the server answered last.", (), [((), seconds)])


def _family(name: str, told: str, labels: tuple[str, ...], rows: Sequence[Row]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"headstart_host_{name}", told, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


def _of_vms(name: str, told: str, values: Mapping[str, float | None]) -> Metric:
    return _family(name, told, ("vm",), [((vm,), value) for vm, value in values.items() if value is not None])


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _sum(report: Mapping[str, Any], key: str) -> float:
    return float(sum(disk.get(key) or 0 for disk in report.get("disks", ())))


def _ahead(report: Mapping[str, Any]) -> float | None:
    changed = _sum(report, "changed_bytes")
    return min(1.0, _sum(report, "precopied_bytes") / changed) if changed else None
