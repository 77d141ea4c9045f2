"""Jobs over several processes: two servers that only order them, and two workers, with procrastinate on PostgreSQL."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import insert, select, text

from headstart.server import ids, repositories, tables
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.site import Site
from headstart.store.server import ServerStore
from tests.kit import shop as kit
from tests.kit.postgres import Postgres
from tests.kit.server import PASSWORD as LOGIN
from tests.kit.server import Person, Server
from tests.kit.shop import ended, shop_of
from tests.kit.waiting import wait_until
from tests.kit.workers import Worker

JOBS = 100


@dataclass(slots=True)
class Fleet:
    """``workers`` by the name that is written into jobs."""

    servers: tuple[Server, Server]
    workers: tuple[Worker, Worker]
    site: Site

    def at_work(self, job: str) -> Worker:
        """Who has it, once somebody has."""

        def look() -> str | None:
            with self.site.database.read() as connection:
                return connection.execute(select(tables.jobs.c.worker).where(tables.jobs.c.id == job)).scalar()

        name = wait_until(look)
        return next(worker for worker in self.workers if worker.name == name)


@pytest.fixture(scope="module")
def fleet(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    data = folder / "server"
    options = ("--database", postgres.new_database(), "--store", str(folder / "objects"))
    idle = (*options, "--workers", "0")
    with (
        Server(data, idle) as one,
        Server(data, idle) as two,
        Worker(data, options, 1) as first,
        Worker(data, options, 2) as second,
    ):
        site = kit.site_of(one)
        yield Fleet((one, two), (first, second), site)
        site.database.close()


def test_many_jobs_are_each_done_once(fleet: Fleet) -> None:
    one, two = fleet.servers
    tenant = one.tenant("many")
    people = (tenant.admin, Person(two.identity, "many-admin", LOGIN))
    call = Call(Principal("", "test", Role.ADMIN, tenant.id), time.time())
    with fleet.site.database.write() as connection:
        places = [repositories.create(connection, call, f"place-{number}") for number in range(JOBS)]
    ordered = [
        people[number % 2].post(f"/v1/repositories/{place}/jobs", {"kind": "recount"})["id"]
        for number, place in enumerate(places)
    ]
    for job in ordered:
        told = ended(tenant.admin, job)
        assert (told["state"], told["attempts"]) == ("done", 1)
    counts = Counter(line.split("job=")[1].split()[0] for line in begun(fleet, "recount"))
    assert counts == Counter(ordered)
    # Both had their part.
    assert all("begun kind=recount" in worker.log() for worker in fleet.workers)
    # Nothing is left with the engine.
    wait_until(lambda: not queued(fleet))


def begun(fleet: Fleet, kind: str) -> list[str]:
    return [line for worker in fleet.workers for line in worker.log().splitlines() if f"begun kind={kind}" in line]


def queued(fleet: Fleet) -> int:
    with fleet.site.database.read() as connection:
        return int(connection.execute(text("SELECT count(*) FROM procrastinate_jobs")).scalar_one())


def test_what_a_killed_worker_had_another_takes_up(fleet: Fleet) -> None:
    shop = shop_of(fleet.site, fleet.servers[0].tenant("killed"))
    made = shop.add(1, time.time())
    shop.tenant.repository("mirror")
    with kit.hanging(shop.folder):
        job = shop.begin("copy", repository="mirror")
        dead = fleet.at_work(job)
        dead.kill()
    told = ended(shop.tenant.admin, job, 90)
    assert (told["state"], told["attempts"]) == ("done", 2)
    shop.require(made, 1, ServerStore(shop.tenant.program("operator").client, "mirror"))
    dead.start()


def test_a_worker_that_is_ended_gives_its_job_to_another(fleet: Fleet) -> None:
    shop = shop_of(fleet.site, fleet.servers[0].tenant("ended"))
    shop.add(1, time.time())
    shop.tenant.repository("mirror")
    with kit.hanging(shop.folder):
        job = shop.begin("copy", repository="mirror")
        ending = fleet.at_work(job)
        assert ending.process is not None
        ending.process.terminate()
    told = ended(shop.tenant.admin, job, 20)  # sooner than one that is dead is noticed
    assert told["state"] == "done"
    assert ending.process.wait(20) == 0
    ending.stop()
    ending.start()


def test_the_database_is_restarted(fleet: Fleet, postgres: Postgres) -> None:
    shop = shop_of(fleet.site, fleet.servers[0].tenant("restarted"))
    made = shop.add(1, time.time())
    shop.tenant.repository("mirror")
    with kit.hanging(shop.folder):
        running = shop.begin("copy", repository="mirror")
        fleet.at_work(running)
        waiting = [shop.begin("verify"), shop.begin("recount")]
        postgres.stop("immediate")
        postgres.start()
    for job in (running, *waiting):
        assert ended(shop.tenant.admin, job, 60)["state"] == "done"
    shop.require(made, 1, ServerStore(shop.tenant.program("operator").client, "mirror"))


def test_a_server_dies_and_jobs_that_nobody_heard_of_are_done(fleet: Fleet) -> None:
    one, two = fleet.servers
    tenant = one.tenant("deaf")
    place = tenant.repository("main")
    one.kill()
    job = ids.new()
    now = time.time()
    row = {"id": job, "tenant": tenant.id, "repository": place, "kind": "recount", "arguments": {}, "actor": "x"}
    times = {"created": now - 60, "due": now - 60, "attempts": 0, "stop": False, "state": "waiting"}
    with fleet.site.database.write() as connection:
        connection.execute(insert(tables.jobs).values({**row, **times}))  # and no bell
    assert ended(Person(two.identity, "deaf-admin", LOGIN), job)["state"] == "done"
    # What comes by itself came once, over four processes.
    with fleet.site.database.read() as connection:
        tidied = connection.execute(select(tables.jobs.c.once).where(tables.jobs.c.kind == "tidy")).scalars().all()
    assert len(tidied) == len(set(tidied)) > 0
