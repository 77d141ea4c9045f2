"""What goes wrong around a server as a store: nothing that it acknowledged is lost, and nothing half is there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headstart import errors
from headstart.store.contract import Exists, Store
from headstart.store.retrying import RetryingStore
from headstart.store.server import ServerStore
from headstart.wire.https import Client
from tests.kit.postgres import Postgres
from tests.kit.server import Server, Tenant
from tests.server.packs import pack

MIB = 1 << 20


def store_of(tenant: Tenant, server: Server | None = None) -> ServerStore:
    """As a host of the tenant's; of another process of the same site."""
    identity = tenant.host(f"host-{os.urandom(4).hex()}").identity
    if server is not None:
        identity = type(identity)(server.identity.url, identity.token, server.identity.fingerprint)
    return ServerStore(Client(identity), "main")


def patient(inner: Store) -> RetryingStore:
    store = RetryingStore(inner, patience=60.0)
    store.clock()  # one that has answered once is waited for
    return store


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server") as running:
        yield running


class Pushing:
    """Threads that add packs until they are stopped, and note what was acknowledged."""

    def __init__(self, stores: list[RetryingStore]) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(len(stores))
        self._done = [self._threads.submit(self._push, number, store) for number, store in enumerate(stores)]

    def _push(self, number: int, store: RetryingStore) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            data = pack(number * 1_000_000 + count)
            key = f"packs/{hashlib.md5(data, usedforsecurity=False).hexdigest()}"
            store.create(key, data)
            self.acknowledged[key] = data

    def wait_for(self, more: int) -> None:
        wanted, end = len(self.acknowledged) + more, time.monotonic() + 60
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < end, "nothing comes through any longer"
            for done in self._done:
                assert not done.done() or done.result() is None
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        for done in self._done:
            done.result(90)


def assert_there(store: Store, acknowledged: dict[str, bytes]) -> None:
    listed = dict(store.list("packs/"))
    for key, data in acknowledged.items():
        assert listed[key] == len(data) and store.read(key) == data


def test_killed_under_load_nothing_acknowledged_is_lost(alone: Server) -> None:
    tenant = alone.tenant("killed")
    tenant.repository()
    pushing = Pushing([patient(store_of(tenant)) for _ in range(4)])
    for _ in range(3):
        pushing.wait_for(20)
        alone.kill()
        alone.start()
    pushing.wait_for(20)
    pushing.end()
    assert_there(store_of(tenant), pushing.acknowledged)


def test_stopped_in_good_order_it_answers_what_it_has_begun(alone: Server) -> None:
    tenant = alone.tenant("stopped")
    tenant.repository()
    pushing = Pushing([patient(store_of(tenant)) for _ in range(2)])
    pushing.wait_for(10)
    alone.stop()
    alone.start()
    pushing.wait_for(10)
    pushing.end()
    assert_there(store_of(tenant), pushing.acknowledged)


def test_of_racing_creators_over_two_processes_one_wins(pair: tuple[Server, Server]) -> None:
    tenant = pair[0].tenant("racing")
    tenant.repository()
    stores = [store_of(tenant, pair[number % 2]) for number in range(4)]
    barrier = threading.Barrier(len(stores))

    def race(number: int) -> int:
        won = 0
        for key in range(10):
            barrier.wait()
            with contextlib.suppress(Exists):
                stores[number].create(f"packs/{key:032x}", pack(number))
                won += 1
        return won

    with ThreadPoolExecutor(len(stores)) as threads:
        assert sum(threads.map(race, range(len(stores)))) == 10


def test_the_database_is_killed_and_comes_back(postgres: Postgres, pair: tuple[Server, Server]) -> None:
    tenant = pair[0].tenant("database")
    tenant.repository()
    pushing = Pushing([patient(store_of(tenant, server)) for server in pair])
    asking = store_of(tenant)
    for how in ("fast", "immediate"):
        pushing.wait_for(10)
        postgres.stop(how)
        time.sleep(1.0)
        with pytest.raises(errors.StoreFailed, match="database"):
            asking.read("config")
        postgres.start()
    pushing.wait_for(10)
    pushing.end()
    assert_there(patient(store_of(tenant)), pushing.acknowledged)


def test_the_store_is_away_and_comes_back(alone: Server) -> None:
    tenant = alone.tenant("away")
    tenant.repository()
    store = store_of(tenant)
    store.create(f"packs/{1:032x}", pack(1))
    objects = alone.folder / "objects"
    objects.rename(alone.folder / "elsewhere")
    objects.write_text("not mounted")
    with pytest.raises(errors.StoreFailed):
        store.create(f"packs/{2:032x}", pack(2))
    assert tenant.admin.ask("GET", "/v1/health/ready").status == 503
    assert tenant.admin.ask("GET", "/v1/health/live").status == 200
    objects.unlink()
    (alone.folder / "elsewhere").rename(objects)
    store.create(f"packs/{2:032x}", pack(2))
    assert dict(store.list("packs/")).keys() == {f"packs/{1:032x}", f"packs/{2:032x}"}


@contextlib.contextmanager
def small(folder: Path) -> Iterator[None]:
    """A file system of 8 MiB there."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_is_told_and_nothing_half_is_there(tmp_path: Path) -> None:
    with small(tmp_path / "objects"), Server(tmp_path / "server", ("--store", str(tmp_path / "objects"))) as server:
        tenant = server.tenant("full")
        tenant.repository()
        store = store_of(tenant)
        kept = {}
        with pytest.raises(errors.NoSpace, match="Make room"):
            for number in range(20):
                store.create(f"packs/{number:032x}", pack(number, MIB))
                kept[f"packs/{number:032x}"] = pack(number, MIB)
        assert 4 <= len(kept) <= 8
        # What is there can be read: so it is not left out.
        assert tenant.admin.get("/v1/health/ready")["state"] == "degraded"
        token = (server.folder / "metrics.token").read_text()
        page = tenant.admin.ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"}).data.decode()
        assert 'headstart_server_disk_full{place="store"} 1.0' in page
        sizes = [
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "headstart_server_disk_bytes" and sample.labels == {"place": "store"}
        ]
        assert sizes == [8 * MIB]
        assert_there(store, kept)
        assert len(dict(store.list("packs/"))) == len(kept)
        used = next(each for each in tenant.admin.get("/v1/repositories") if each["name"] == "main")
        assert used["used_bytes"] == sum(map(len, kept.values())) and used["objects"] == len(kept)


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_a_quota_is_exact_also_for_those_who_come_together(
    where: str, alone: Server, request: pytest.FixtureRequest
) -> None:
    servers = (alone, alone) if where == "sqlite" else request.getfixturevalue("pair")
    tenant = servers[0].tenant(f"bounded-{where}")
    for name in ("main", "second"):
        tenant.repository(name)
    size = len(pack(0))
    servers[0].site().put(f"/v1/tenants/{tenant.id}/quota", {"quota_bytes": 10 * size + size // 2})
    made: list[Callable[[], None]] = []
    for number in range(24):
        store = store_of(tenant, servers[number % 2])
        made.append(lambda store=store, number=number: store.create(f"packs/{number:032x}", pack(number)))  # type: ignore[misc]

    def attempt(create: Callable[[], None]) -> bool:
        try:
            create()
        except errors.NoSpace:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(attempt, made)) == 10
    assert len(dict(store_of(tenant, servers[0]).list("packs/"))) == 10
