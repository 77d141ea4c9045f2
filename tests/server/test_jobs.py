"""Work on the server's side, in the one process of a server with SQLite: a real client pushes over HTTPS, and what the
server does is what another one finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
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
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

STRUCTURE = b"the structure alone"
WAIT_SECONDS = 60.0
DAY = 86400.0


def until(found: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """What ``found`` returns, once it is something."""
    end = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.1)
    return result


def ended(person: Person, job: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = person.get(f"/v1/jobs/{job}")
        return told if told["state"] in ("done", "failed", "cancelled") else None

    found: dict[str, Any] = until(look)
    return found


def site_of(server: Server) -> Site:
    """The server's own database and objects, from beside it."""
    data = server.folder
    return open_site(Settings(data, f"sqlite:///{data / 'server.db'}", str(data / "objects")))


@dataclass(slots=True)
class Shop:
    """A tenant with a repository that a client made over HTTPS, and whose structure the server can open."""

    server: Server
    site: Site
    tenant: Tenant
    id: str
    store: Store

    def open(self) -> Repository:
        return repository.open(self.store, lambda: PASSWORD)

    def order(self, kind: str, **arguments: object) -> dict[str, Any]:
        job = self.tenant.admin.post(f"/v1/repositories/{self.id}/jobs", {"kind": kind, **arguments})["id"]
        return ended(self.tenant.admin, job)

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

    def require(self, made: Manifest, seed: int) -> None:
        """It restores, byte for byte."""
        with self.open() as repo:
            found = samples.restored(repo, snapshot.load(repo, made.id).disks[0])
        assert found.contents == {number: noise(100 * seed + number) for number in range(3)}

    @property
    def folder(self) -> Path:
        return self.server.folder / "objects" / self.tenant.id / self.id

    def used(self) -> tuple[int, int]:
        rows = self.tenant.admin.get("/v1/repositories")
        row = next(row for row in rows if row["id"] == self.id)
        return row["used_bytes"], row["objects"]

    def stored(self) -> tuple[int, int]:
        sizes = [size for _, size in LocalStore(self.folder).list("")]
        return sum(sizes), len(sizes)


def shop_of(server: Server, site: Site, name: str, **values: object) -> Shop:
    tenant = server.tenant(name)
    repository_id = tenant.repository("main", **values)
    client = tenant.program("admin").client
    store = ServerStore(client, "main")
    with repository.create(store, PASSWORD, cost=QUICK) as repo:
        keyring.add(repo, STRUCTURE, time.time(), structure_alone=True, cost=QUICK)
    give(site, repository_id)
    return Shop(server, site, tenant, repository_id, store)


def give(site: Site, repository_id: str) -> None:
    """The key of the structure."""
    sealed = site.sealer.seal(repositories.STRUCTURE, STRUCTURE)
    with site.database.write() as connection:
        change = update(tables.repositories).where(tables.repositories.c.id == repository_id)
        connection.execute(change.values(structure=sealed))


@pytest.fixture(scope="module")
def site(server: Server) -> Iterator[Site]:
    opened = site_of(server)
    yield opened
    opened.database.close()


def policy(tenant: Tenant, text: str) -> None:
    tenant.admin.put("/v1/policies/all", {"text": 'schedule.calendar = "daily"\n' + text})
    tenant.admin.put("/v1/assignments/", {"policy": "all"}) if False else None


def test_retention_forgets_and_collecting_frees_and_the_rest_restores(server: Server, site: Site) -> None:
    shop = shop_of(server, site, "whole")
    policy(shop.tenant, "retention.keep_last = 1")
    assign(shop.tenant, "*")
    now = time.time()
    old, new = shop.add(1, now - 2 * DAY), shop.add(2, now - DAY)
    before = shop.stored()
    assert shop.used() == before

    told = shop.done("forget")
    assert (told["forgotten"], told["unclear"]) == ([old.id], {})
    with shop.open() as repo:
        assert [each.id for each in snapshot.all_manifests(repo).manifests] == [new.id]
    # Nothing is freed before the quarantine is over.
    first = shop.done("gc")
    assert first["freed_bytes"] == 0
    shop.done("gc", quarantine=0)
    last = shop.done("gc", quarantine=0)
    assert last["freed_bytes"] > 2 * BLOCK
    assert shop.stored()[0] < before[0] - 2 * BLOCK
    assert shop.used() == shop.stored()
    shop.require(new, 2)
    assert shop.done("verify")["damaged"] == 0


def assign(tenant: Tenant, pattern: str) -> None:
    from urllib.parse import quote

    tenant.admin.put(f"/v1/assignments/{quote(pattern, safe='')}", {"policy": "all"})
