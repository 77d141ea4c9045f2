"""All VMs of a tenant with their standing: a few queries, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from headstart import errors
from headstart.server import tables
from headstart.server.call import Call
from headstart.server.pages import doubts, standing, view
from headstart.server.pages.doubts import Doubt
from headstart.server.pages.standing import Known, Level, Standing
from headstart.server.pages.view import View
from headstart.server.roles import Right


@dataclass(frozen=True, slots=True)
class Vm:
    id: str
    name: str
    host_id: str
    host: str
    view: View | None
    last_success: float | None
    window: float | None
    residue: float | None
    standing: Standing

    @property
    def is_running(self) -> bool:
        return self.view is not None and self.view.doing is not None

    @property
    def due(self) -> float | None:
        return None if self.view is None else self.view.due


@dataclass(frozen=True, slots=True)
class Wish:
    """``show``: a level, ``run``, or empty for all; ``sort``: a key of ``SORTS``, with a ``-`` before it downwards."""

    search: str = ""
    show: str = ""
    host: str = ""
    sort: str = ""

    def matches(self, vm: Vm) -> bool:
        return (
            (not self.show or vm.standing.level == self.show or (self.show == "run" and vm.is_running))
            and (not self.host or vm.host_id == self.host)
            and (not self.search or self.search in vm.name.casefold() or self.search in vm.host.casefold())
        )


def _known_first(moment: float | None) -> float:
    return float("inf") if moment is None else moment


SORTS: dict[str, Callable[[Vm], Any]] = {
    "name": lambda vm: (vm.name.casefold(), vm.id),
    "state": lambda vm: (standing.ORDER[vm.standing.level], vm.name.casefold(), vm.id),
    "last": lambda vm: (-(vm.last_success or 0.0), vm.id),
    "next": lambda vm: (_known_first(vm.due), vm.id),
    "left": lambda vm: (0.0 if vm.view is None else -vm.view.remaining, vm.id),
}
SORT = "state"


def all_of(connection: Connection, call: Call) -> list[Vm]:
    known = doubts.known(connection, call.who.of(Right.SEE))
    return [_vm(tuple(row), known, call.now) for row in connection.execute(_query(call))]


def one(connection: Connection, call: Call, vm: str) -> Vm:
    """Raises ``NotFound``."""
    row = connection.execute(_query(call).where(tables.vms.c.id == vm)).first()
    if row is None:
        raise errors.NotFound(f"There is no VM {vm!r} here.")
    return _vm(tuple(row), doubts.known(connection, call.who.of(Right.SEE), row[1]), call.now)


def _query(call: Call) -> Select[Any]:
    vms, hosts = tables.vms.c, tables.hosts.c
    columns = (vms.id, vms.name, vms.host, hosts.name, vms.seen, hosts.seen, vms.view, vms.last_success)
    return (
        select(*columns, vms.last_error, vms.residue_bytes, vms.window_seconds)
        .join_from(tables.vms, tables.hosts, vms.host == hosts.id)
        .where(vms.tenant == call.who.of(Right.SEE))
    )


def _vm(row: tuple[Any, ...], known: Mapping[tuple[str, str], Doubt], now: float) -> Vm:
    its, name, host_id, host, seen, host_seen, told, success, error, residue, window = row
    found = view.of(told)
    state = standing.of(Known(found, seen, host_seen, success, error, known.get((name, host))), now)
    return Vm(its, name, host_id, host, found, success, window, residue, state)


def chosen(vms: Iterable[Vm], wish: Wish) -> list[Vm]:
    found = [vm for vm in vms if wish.matches(vm)]
    key = wish.sort.removeprefix("-")
    return sorted(found, key=SORTS.get(key, SORTS[SORT]), reverse=wish.sort.startswith("-"))


def counts(vms: Iterable[Vm]) -> dict[str, int]:
    """By level, and of what runs."""
    found: dict[str, int] = {level.value: 0 for level in Level} | {"run": 0}
    for vm in vms:
        found[vm.standing.level.value] += 1
        found["run"] += vm.is_running
    return found


def points(connection: Connection, tenant: str, vms: Sequence[Vm]) -> dict[str, int]:
    """By name of the VM, how many restore points there are: those of the name, on whatever host it was, and each once,
    however many repositories have it."""
    if not vms:
        return {}
    its = tables.snapshots.c
    query = select(its.vm, func.count(its.id.distinct())).where(
        its.tenant == tenant, its.vm.in_({vm.name for vm in vms})
    )
    return {row[0]: row[1] for row in connection.execute(query.group_by(its.vm))}


def point_count(connection: Connection, tenant: str) -> int:
    its, places = tables.snapshots.c, tables.repositories.c
    query = select(its.id).where(its.tenant == tenant)
    # To find what is there twice takes a few times as long as to count.
    several = select(func.count()).select_from(tables.repositories).where(places.tenant == tenant)
    if connection.execute(several).scalar_one() > 1:
        query = query.distinct()
    return connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
