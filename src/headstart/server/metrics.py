"""What Prometheus asks for: of requests as they come, of everything else when it asks.

Names begin with ``headstart_server_`` for the site, ``headstart_vm_`` and ``headstart_tenant_`` for what a tenant asks
of its own. The site's have no label with a name of a VM: ten thousand of them would be a page of megabytes each time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select

from headstart import __version__, errors
from headstart.server import hosts, room, tables
from headstart.server.room import Room
from headstart.server.site import Site

#: A backup that is older than this is late, whatever its schedule: what the site sees of all tenants.
LATE_SECONDS = 26 * 3600.0
#: Requests under way in one process that do not wait for each other long; and 15 s become two minutes at most, which is
#: before a host counts as away.
_COMFORTABLE, _LONGEST_STRETCH = 16, 8.0
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
MEDIA = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Of one process."""

    def __init__(self, site: Site) -> None:
        self._registry = CollectorRegistry()
        self._working = 0
        self.seconds = Histogram(
            "headstart_server_request_seconds",
            "Time to the end of an answer, by method, route and status.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.received = Counter(
            "headstart_server_received_bytes", "Bodies of requests.", ("route",), registry=self._registry
        )
        self.sent = Counter("headstart_server_sent_bytes", "Bodies of answers.", ("route",), registry=self._registry)
        self.under_way = Gauge("headstart_server_requests", "Requests under way.", registry=self._registry)
        self.bugs = Counter("headstart_server_bugs", "Requests that met a bug.", registry=self._registry)
        self._registry.register(_OfSite(site))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While a request is under way. For the one thread of the event loop."""
        self._working += 1
        try:
            with self.under_way.track_inprogress():
                yield
        finally:
            self._working -= 1

    @property
    def stretch(self) -> float:
        """By how much hosts are to wait longer between two pulses: what piles up here would only grow by more."""
        return min(max(1.0, self._working / _COMFORTABLE), _LONGEST_STRETCH)

    def page(self) -> bytes:
        return generate_latest(self._registry)


class _OfSite:
    """Counted when it is asked for. Where the database is away, that is what is told."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: the database need not be there."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        began = time.perf_counter()
        yield _gauge("headstart_server_info", "This release.", {"version": __version__}, 1.0)
        try:
            with self._site.database.read() as connection:
                found = list(_of_site(connection, self._site.clock()))
        except errors.HeadstartError:
            found = []
        yield from found
        yield from _of_disks(room.look(self._site))
        yield _gauge("headstart_server_database_up", "Whether the database answers.", {}, float(bool(found)))
        yield _gauge("headstart_server_collect_seconds", "What this page cost.", {}, time.perf_counter() - began)


def _gauge(name: str, told: str, labels: dict[str, str], value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, told, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _family(name: str, told: str, labels: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, told, labels=list(labels))
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


def _of_site(connection: Connection, now: float) -> Iterator[Metric]:
    tenants, repositories, vms = tables.tenants.c, tables.repositories.c, tables.vms.c
    used = (
        select(tenants.name, func.sum(repositories.used_bytes), func.sum(repositories.objects))
        .join_from(tables.repositories, tables.tenants, repositories.tenant == tenants.id)
        .group_by(tenants.name)
    )
    rows = connection.execute(used).all()
    label = ("tenant",)
    yield _family("headstart_server_used_bytes", "Stored.", label, [((row[0],), float(row[1])) for row in rows])
    yield _family("headstart_server_objects", "Stored.", label, [((row[0],), float(row[2])) for row in rows])
    quotas = connection.execute(select(tenants.name, tenants.quota_bytes).where(tenants.quota_bytes.is_not(None)))
    quota_rows = [((row[0],), float(row[1])) for row in quotas]
    yield _family("headstart_server_quota_bytes", "What a tenant may store.", label, quota_rows)
    late = (vms.last_success.is_(None)) | (vms.last_success < now - LATE_SECONDS)
    counts = (
        select(tenants.name, func.count(), func.count().filter(late), func.min(vms.last_success))
        .join_from(tables.vms, tables.tenants, vms.tenant == tenants.id)
        .group_by(tenants.name)
    )
    found = connection.execute(counts).all()
    yield _family("headstart_server_vms", "VMs.", label, [((row[0],), float(row[1])) for row in found])
    told = f"VMs without a backup in the last {LATE_SECONDS / 3600:.0f} hours."
    yield _family("headstart_server_vms_late", told, label, [((row[0],), float(row[2])) for row in found])
    oldest = [((row[0],), float(row[3])) for row in found if row[3] is not None]
    yield _family("headstart_server_oldest_success_timestamp_seconds", "Of the VM whose last is oldest.", label, oldest)
    its = tables.hosts.c
    away = func.count().filter((its.seen.is_(None)) | (its.seen < now - hosts.AWAY_SECONDS))
    count, gone = connection.execute(select(func.count(), away).select_from(tables.hosts)).one()
    yield _gauge("headstart_server_hosts", "Hosts that have joined.", {}, float(count))
    yield _gauge("headstart_server_hosts_away", "Hosts that were not heard of for a while.", {}, float(gone))
    yield from _of_jobs(connection, now)


def _of_disks(rooms: Sequence[Room]) -> Iterator[Metric]:
    label = ("place",)
    free = [((each.place,), float(each.free)) for each in rooms]
    yield _family("headstart_server_free_bytes", "Of the disks of the server's data and objects.", label, free)
    size = [((each.place,), float(each.size)) for each in rooms]
    yield _family("headstart_server_disk_bytes", "Sizes of these disks.", label, size)
    full = [((each.place,), float(each.is_full)) for each in rooms]
    yield _family("headstart_server_disk_full", "Whether they have no room for more.", label, full)


def _of_jobs(connection: Connection, now: float) -> Iterator[Metric]:
    its = tables.jobs.c
    counts = connection.execute(select(its.kind, its.state, func.count()).group_by(its.kind, its.state)).all()
    rows = [((row[0], row[1]), float(row[2])) for row in counts]
    yield _family("headstart_server_jobs", "Jobs that are kept, by kind and state.", ("kind", "state"), rows)
    oldest = connection.execute(select(func.min(its.due)).where(its.state == "waiting", its.due <= now)).scalar()
    seconds = 0.0 if oldest is None else now - oldest
    yield _gauge("headstart_server_queue_seconds", "How long the oldest job that is due has waited.", {}, seconds)


def of_tenant(site: Site, tenant: str) -> bytes:
    """Of each of its VMs, for its own monitoring."""
    registry = CollectorRegistry()
    registry.register(_OfTenant(site, tenant))
    return generate_latest(registry)


#: By column, name and meaning.
_OF_VM = {
    "last_success": ("headstart_vm_last_success_timestamp_seconds", "Point in time of the newest backup."),
    "last_failure": ("headstart_vm_last_failure_timestamp_seconds", "When a backup failed last."),
    "residue_bytes": ("headstart_vm_residue_bytes", "Read inside the window of the newest backup."),
    "window_seconds": ("headstart_vm_window_seconds", "Window of the newest backup."),
    "changed_bytes": ("headstart_vm_changed_bytes", "Changed before the newest backup."),
}


class _OfTenant:
    def __init__(self, site: Site, tenant: str) -> None:
        self._site = site
        self._tenant = tenant

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        now, vms, snapshots = self._site.clock(), tables.vms.c, tables.snapshots.c
        newest = select(snapshots.changed_bytes).where(
            snapshots.tenant == self._tenant,
            snapshots.vm == vms.name,
            snapshots.created == vms.last_success,
            snapshots.changed_bytes.is_not(None),  # a copy in another repository tells none
        )
        query = (
            select(
                tables.vms,
                tables.hosts.c.name.label("host_name"),
                newest.limit(1).scalar_subquery().label("changed_bytes"),
            )
            .join_from(tables.vms, tables.hosts, vms.host == tables.hosts.c.id)
            .where(vms.tenant == self._tenant)
        )
        with self._site.database.read() as connection:
            rows = connection.execute(query).mappings().all()
        label = ("host", "vm")
        for column, (name, told) in _OF_VM.items():
            values = [((row["host_name"], row["name"]), float(row[column])) for row in rows if row[column] is not None]
            yield _family(name, told, label, values)
        ages = [((row["host_name"], row["name"]), now - row["last_success"]) for row in rows if row["last_success"]]
        yield _family("headstart_vm_age_seconds", "Of the newest backup.", label, ages)
        failing = [((row["host_name"], row["name"]), float(row["last_error"] is not None)) for row in rows]
        yield _family("headstart_vm_failing", "Whether the last backup failed.", label, failing)
        pending = [(row, row["view"] or {}) for row in rows]
        remaining = [
            ((row["host_name"], row["name"]), float(view["remaining_bytes"]))
            for row, view in pending
            if view.get("remaining_bytes") is not None
        ]
        yield _family("headstart_vm_remaining_bytes", "Changed, and not copied ahead yet.", label, remaining)
