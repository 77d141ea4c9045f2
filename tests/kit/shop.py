"""A tenant's repository at a server, made by a real client over HTTPS, and what the server works on in it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import update

from headstart import repository
from headstart.repository import keyring, snapshot
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.server import repositories, tables
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site
from headstart.store.contract import Store
from headstart.store.local import LocalStore
from headstart.store.server import ServerStore
from tests.kit.server import Person, Server, Tenant
from tests.kit.stores import PASSWORD, QUICK
from tests.kit.waiting import wait_until
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

STRUCTURE = b"the structure alone"
WAIT_SECONDS = 60.0
DAY = 86400.0
ENDED = ("done", "failed", "cancelled")


def ended(person: Person, job: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = person.get(f"/v1/jobs/{job}")
        return told if told["state"] in ENDED else None

    found: dict[str, Any] = wait_until(look, seconds)
    return found


def site_of(server: Server) -> Site:
    """The server's own database and objects, from beside it."""
    data, options = server.folder, server.options
    chosen = dict(zip(options[::2], options[1::2], strict=True))
    database = chosen.get("--database", f"sqlite:///{data / 'server.db'}")
    return open_site(Settings(data, database, chosen.get("--store", str(data / "objects"))))


@dataclass(slots=True)
class Shop:
    """Its structure can be opened by the server."""

    site: Site
    tenant: Tenant
    id: str
    store: Store

    def open(self) -> Repository:
        return repository.open(self.store, lambda: PASSWORD)

    def begin(self, kind: str, **arguments: object) -> str:
        job = self.tenant.admin.post(f"/v1/repositories/{self.id}/jobs", {"kind": kind, **arguments})
        return str(job["id"])

    def order(self, kind: str, **arguments: object) -> dict[str, Any]:
        return ended(self.tenant.admin, self.begin(kind, **arguments))

    def done(self, kind: str, **arguments: object) -> dict[str, Any]:
        told = self.order(kind, **arguments)
        assert told["state"] == "done", told
        result: dict[str, Any] = told["result"]
        return result

    def add(self, seed: int, created: float, vm: str = "web") -> Manifest:
        """Of content that no other one has."""
        with self.open() as repo:
            image = Image(4 * BLOCK, {number: noise(100 * seed + number) for number in range(3)})
            return samples.add_snapshot(repo, {"sda": image}, vm, created)

    def require(self, made: Manifest, seed: int, store: Store | None = None) -> None:
        """It restores, byte for byte."""
        with repository.open(store or self.store, lambda: PASSWORD) as repo:
            found = samples.restored(repo, snapshot.load(repo, made.id).disks[0])
        assert found.contents == {number: noise(100 * seed + number) for number in range(3)}

    def there(self) -> list[str]:
        with self.open() as repo:
            return [each.id for each in snapshot.all_manifests(repo).manifests]

    @property
    def folder(self) -> Path:
        return folder_of(self.site, self.tenant, self.id)

    def used(self) -> tuple[int, int]:
        rows = self.tenant.admin.get("/v1/repositories")
        row = next(row for row in rows if row["id"] == self.id)
        return row["used_bytes"], row["objects"]

    def folder_store(self) -> LocalStore:
        """Its objects, past the server."""
        return LocalStore(self.folder)

    def stored(self) -> tuple[int, int]:
        sizes = [size for _, size in self.folder_store().list("")]
        return sum(sizes), len(sizes)


def folder_of(site: Site, tenant: Tenant, repository_id: str) -> Path:
    return Path(site.settings.store) / tenant.id / repository_id


def shop_of(site: Site, tenant: Tenant, name: str = "main", **values: object) -> Shop:
    repository_id = tenant.repository(name, **values)
    store = ServerStore(tenant.program("admin").client, name)
    with repository.create(store, PASSWORD, cost=QUICK) as repo:
        keyring.add(repo, STRUCTURE, time.time(), structure_alone=True, cost=QUICK)
    give(site, repository_id)
    return Shop(site, tenant, repository_id, store)


def give(site: Site, repository_id: str, password: bytes = STRUCTURE) -> None:
    """The server knows this password of the repository's."""
    sealed = site.sealer.seal(repositories.STRUCTURE, password)
    with site.database.write() as connection:
        change = update(tables.repositories).where(tables.repositories.c.id == repository_id)
        connection.execute(change.values(structure=sealed))


@contextlib.contextmanager
def hanging(folder: Path) -> Iterator[Path]:
    """The store of a repository in this folder hangs when it is read: a pipe that nobody writes to stands in place of
    a pack. After the block it is gone, and nobody hangs any longer."""
    pipe = folder / "packs" / ("0" * 32)
    os.mkfifo(pipe)
    try:
        yield pipe
    finally:
        with contextlib.suppress(OSError):
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        pipe.unlink()
        with contextlib.suppress(UnboundLocalError, OSError):
            os.close(writer)


def keep(tenant: Tenant, rule: str, pattern: str = "*") -> None:
    """The VMs of that pattern have a policy with this retention."""
    tenant.admin.put("/v1/policies/kept", {"text": f'schedule.calendar = "daily"\nretention.{rule}\n'})
    tenant.admin.put(f"/v1/assignments?{urlencode({'pattern': pattern})}", {"policy": "kept"})
