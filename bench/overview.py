"""How long the server's pages take with many VMs and restore points: ``python -m bench.overview``.

A real server process with TLS, on SQLite and on PostgreSQL, its database filled beforehand: VMs on twenty hosts, their
restore points, and as many again of another tenant. Printed is, of each page, the median and the 95th percentile of so
many requests, one after the other, as a browser with a kept connection sends them; and what a request takes of the
server's processor, which other work on the machine does not change much.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text

from headstart.server import ids, tables
from headstart.server.database import Database
from tests.kit.machine import view
from tests.kit.postgres import Postgres
from tests.kit.server import Person, Server, Tenant

HOSTS = 20
_BATCH = 5000
PAGES = ("/", "/?show=bad", "/?q=vm-0999", "/?sort=last&page=7", "/hosts", "/repositories", "/policies")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=40)
    given = parser.parse_args()
    for kind in ("sqlite", "postgresql"):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-bench-")))
            options: tuple[str, ...] = ()
            url = f"sqlite:///{folder / 'server.db'}"
            if kind == "postgresql":
                url = stack.enter_context(Postgres()).new_database()
                options = ("--database", url)
            server = stack.enter_context(Server(folder, options, anew=True))
            tenant, other = server.tenant("large"), server.tenant("other")
            for each in (tenant, other):
                fill(Database(url), each, given.vms, given.points)
            assert server.process is not None
            measure(kind, tenant.admin, given.requests, server.process.pid)


def fill(database: Database, tenant: Tenant, vms: int, points: int) -> None:
    tenant.repository()
    hosts = [tenant.host(f"host-{number}").host for number in range(HOSTS)]
    random.seed(1)
    now = time.time()
    with database.write() as connection:
        repository = connection.execute(
            select(tables.repositories.c.id).where(tables.repositories.c.tenant == tenant.id)
        ).scalar_one()
        _insert(connection, tables.vms, (_vm(tenant.id, hosts[n % HOSTS], n, now) for n in range(vms)))
        rows = (_point(tenant.id, repository, n % vms, n // vms, now) for n in range(points))
        _insert(connection, tables.snapshots, rows)
        connection.execute(tables.hosts.update().where(tables.hosts.c.tenant == tenant.id).values(seen=now + 1e6))
    with database.read() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()
    database.close()


def _insert(connection: Connection, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            connection.execute(insert(table), batch)
            batch = []
    if batch:
        connection.execute(insert(table), batch)


def _vm(tenant: str, host: str, number: int, now: float) -> dict[str, Any]:
    """Of ten, one has failed, one has no policy, one is copying."""
    kind = number % 10
    doing = {"verb": "precopy", "since": now, "what": "copying", "done": number, "total": 2000, "quiet": 0.1}
    told = None if kind == 1 else view(due=now + 1e6, doing=doing if kind == 2 else None)
    return {
        "id": ids.new(),
        "tenant": tenant,
        "host": host,
        "name": f"vm-{number:04}",
        "created": now,
        "seen": now,
        "view": told,
        "last_success": now - 3600 - number,
        "last_failure": now - 60 if kind == 0 else None,
        "last_error": "The scratch directory has no room." if kind == 0 else None,
        "residue_bytes": 20 << 20,
        "window_seconds": 0.5,
    }


def _point(tenant: str, repository: str, vm: int, number: int, now: float) -> dict[str, Any]:
    return {
        "repository": repository,
        "id": ids.new(),
        "tenant": tenant,
        "vm": f"vm-{vm:04}",
        "host": f"host-{vm % HOSTS}",
        "created": now - 3600 - number * 86400 - vm,
        "consistency": "filesystem",
        "size": 40 << 30,
        "changed_bytes": random.randrange(1 << 32),
        "residue_bytes": random.randrange(1 << 26),
        "stored_bytes": random.randrange(1 << 31),
        "window_seconds": random.random(),
    }


def _cpu_seconds(pid: int) -> float:
    """Of all its threads (proc(5), /proc/PID/stat)."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def measure(kind: str, person: Person, count: int, pid: int) -> None:
    vm = person.get("/v1/vms?limit=1")[0]["id"]
    for path in (*PAGES, f"/vms/{vm}", f"/vms/{vm}/live", f"/vms/{vm}/picture.svg"):
        # The first one compiles the template.
        assert person.ask("GET", path).status == 200
        seconds, cpu = [], _cpu_seconds(pid)
        for _ in range(count):
            begun = time.perf_counter()
            answer = person.ask("GET", path)
            seconds.append(time.perf_counter() - begun)
            assert answer.status == 200, answer.detail
        ordered = sorted(seconds)
        found = {
            "database": kind,
            "page": path.replace(vm, "ID"),
            "bytes": len(answer.data),
            "median_ms": round(statistics.median(ordered) * 1000, 1),
            "p95_ms": round(ordered[int(len(ordered) * 0.95)] * 1000, 1),
            "cpu_ms": round((_cpu_seconds(pid) - cpu) / count * 1000, 1),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
