"""Two server processes on PostgreSQL and SeaweedFS, tenants in them, hosts that joined; and what all of it costs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy

from headstart.store.membership import Membership
from tests.kit.postgres import Postgres
from tests.kit.server import Server, Tenant
from tests.kit.weed import Weed

_TICKS = 100.0
POLICY = 'schedule = { calendar = "02:00", timezone = "UTC" }\n'


@dataclass(frozen=True, slots=True)
class Site:
    servers: tuple[Server, Server]
    database: str

    def cpu_seconds(self) -> dict[str, float]:
        """By kind of process, since it began."""
        found = {"server 1": 0.0, "server 2": 0.0, "PostgreSQL": 0.0, "SeaweedFS": 0.0}
        pids = {
            server.process.pid: f"server {number}" for number, server in enumerate(self.servers, 1) if server.process
        }
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().rpartition(")")
                kind = pids.get(int(entry.name)) or _KINDS.get(name.partition("(")[2])
                if kind is not None:
                    # Fields 14 to 17 of proc(5), counted from the one after the name.
                    found[kind] += sum(map(int, rest.split()[11:15])) / _TICKS
        return found

    def memory(self) -> list[int]:
        """The largest resident set of each server, bytes."""
        found = []
        for server in self.servers:
            assert server.process is not None
            text = Path(f"/proc/{server.process.pid}/status").read_text()
            found.append(int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024)
        return found

    def tables(self) -> dict[str, tuple[int, int]]:
        """Rows, and bytes with indexes, of each table that is not empty."""
        engine = sqlalchemy.create_engine(self.database.replace("postgresql:", "postgresql+psycopg:"))
        names = sqlalchemy.inspect(engine).get_table_names()
        with engine.connect() as connection:
            found = {
                name: (
                    connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar_one(),
                    connection.exec_driver_sql(f"SELECT pg_total_relation_size('\"{name}\"')").scalar_one(),
                )
                for name in names
            }
        engine.dispose()
        return {name: size for name, size in found.items() if size[0]}


_KINDS = {"postgres": "PostgreSQL", "weed": "SeaweedFS"}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Site]:
    with Postgres() as postgres, Weed() as weed:
        database = postgres.new_database()
        options = ("--database", database, "--store", f"s3://{weed.new_bucket()}/objects")
        # All of them come from one address.
        environment = {**weed.environment, "HEADSTART_SERVER_RATE_STRANGERS": "0"}
        one = Server(folder / "server", options, environment=environment)
        two = Server(folder / "server", options, environment=environment)
        with one, two:
            yield Site((one, two), database)


def join(site: Site, tenants: int, hosts: int) -> list[Membership]:
    """So many hosts of each of so many tenants."""
    found: list[Membership] = []
    with ThreadPoolExecutor(8) as threads:
        for number in range(tenants):
            tenant = _tenant(site, number)
            found += threads.map(lambda each, tenant=tenant: tenant.host(f"host{each}"), range(hosts))
    return found


def _tenant(site: Site, number: int) -> Tenant:
    tenant = site.servers[number % 2].tenant(f"tenant{number}")
    tenant.repository()
    tenant.admin.put("/v1/policies/nightly", {"text": POLICY})
    tenant.admin.put("/v1/assignments", {"policy": "nightly"})
    return tenant


def version() -> str:
    """Of PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))[-1]
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
