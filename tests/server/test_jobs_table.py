"""The table of jobs by itself, with a clock that is set by hand: who gets what, and what becomes of it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from procrastinate.schema import SchemaManager
from sqlalchemy import select, text, update

from headstart import errors
from headstart.server import attempts, engine, events, jobs, keeper, kinds, repositories, tables, tenants, turns, vms
from headstart.server.call import Call
from headstart.server.database import Database
from headstart.server.jobs import Job, Sign, State, Wish
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site
from headstart.server.work import registry
from headstart.server.work.contract import Beat
from headstart.server.worker import Worker
from tests.kit.postgres import Postgres


class Bench:
    """A site, its clock, and what workers did in it."""

    def __init__(self, site: Site) -> None:
        self.now = 1_000_000.0
        self.site = replace(site, clock=lambda: self.now)

    def add(self, wish: Wish, seconds: float = 0.0) -> str | None:
        with self.site.database.write() as connection:
            return jobs.add(connection, wish, self.now, seconds)

    def take(self, job: str, worker: str = "one") -> Job | None:
        with self.site.database.write() as connection:
            return jobs.take(connection, job, worker, self.now)

    def beat(self, job: Job, worker: str = "one") -> Sign:
        with self.site.database.write() as connection:
            return jobs.beat(connection, job, worker, self.now, {"what": "x"})

    def end(self, job: Job, worker: str = "one") -> bool:
        with self.site.database.write() as connection:
            return jobs.end(connection, job, worker, State.DONE, self.now, result={})

    def stop(self, job: str) -> None:
        with self.site.database.write() as connection:
            jobs.stop(connection, job, self.now)

    def due(self) -> list[str]:
        with self.site.database.read() as connection:
            return jobs.due(connection, self.now)

    def row(self, job: str) -> dict[str, Any]:
        with self.site.database.read() as connection:
            found = connection.execute(select(tables.jobs).where(tables.jobs.c.id == job)).mappings().one()
        return dict(found)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        with self.site.database.read() as connection:
            query = select(tables.jobs).where(tables.jobs.c.kind == kind).order_by(tables.jobs.c.created)
            return [dict(row) for row in connection.execute(query).mappings()]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("site")
    url = f"sqlite:///{folder / 'server.db'}"
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_database()
    site = open_site(Settings(folder, url, str(folder / "objects")))
    yield site
    site.database.close()


@pytest.fixture
def bench(opened: Site) -> Bench:
    with opened.database.write() as connection:
        connection.execute(tables.jobs.delete())
    return Bench(opened)


def added(bench: Bench, wish: Wish | None = None, seconds: float = 0.0) -> str:
    job = bench.add(wish or Wish("recount"), seconds)
    assert job is not None
    return job


def taken(bench: Bench, job: str, worker: str = "one") -> Job:
    found = bench.take(job, worker)
    assert found is not None
    return found


def test_one_gets_it_and_it_is_done_once(bench: Bench) -> None:
    job = added(bench)
    assert bench.due() == [job]
    mine = taken(bench, job)
    assert bench.take(job, "two") is None
    assert bench.due() == []
    assert not bench.end(mine, "two")
    assert bench.end(mine)
    assert bench.take(job) is None
    assert bench.row(job)["state"] == "done"


def test_of_several_processes_one_has_its_turn(bench: Bench) -> None:
    found: list[bool] = []
    for now in (0.0, 59.9, 60.0):

        def take(now: float = now) -> None:
            with bench.site.database.write() as connection:
                found.append(turns.take(connection, "lapses", now, 60.0))

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(found) == (1 if now < 60 else 2)
    assert len(found) == 12


def test_of_many_that_try_at_once_one_gets_it(bench: Bench) -> None:
    job = added(bench)
    found: list[Job | None] = []
    threads = [threading.Thread(target=lambda each=each: found.append(bench.take(job, each))) for each in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([each for each in found if each is not None]) == 1


def test_what_is_not_due_waits(bench: Bench) -> None:
    job = added(bench, seconds=60)
    assert (bench.due(), bench.take(job)) == ([], None)
    bench.now += 60
    assert taken(bench, job).attempts == 1


def test_of_a_lane_one_runs_at_a_time(bench: Bench) -> None:
    forget, gc, verify = (added(bench, Wish(kind)) for kind in ("forget", "gc", "verify"))
    mine = taken(bench, forget)
    assert bench.take(gc, "two") is None
    taken(bench, verify, "two")
    bench.end(mine)
    taken(bench, gc, "two")


def test_a_worker_that_is_silent_loses_its_job(bench: Bench) -> None:
    job = added(bench)
    mine = taken(bench, job)
    bench.now += jobs.DEAD_SECONDS
    assert bench.beat(mine) is Sign.ON
    bench.now += jobs.DEAD_SECONDS + 1
    assert bench.due() == [job]
    assert taken(bench, job, "two").attempts == 2
    assert bench.beat(mine) is Sign.LOST
    assert not bench.end(mine)


def test_a_job_whose_workers_die_fails_in_the_end(bench: Bench) -> None:
    with bench.site.database.write() as connection:
        call = Call(Principal("", "site", Role.SITE, None), bench.now)
        tenant = tenants.create(connection, call, f"dead-{id(bench)}")
    job = added(bench, Wish("recount", tenant))
    for attempt in range(jobs.ATTEMPTS):
        assert taken(bench, job, f"worker {attempt}").attempts == attempt + 1
        bench.now += jobs.DEAD_SECONDS + 1
    assert bench.take(job) is None
    row = bench.row(job)
    assert (row["state"], row["lane"]) == ("failed", None)
    assert "died" in row["error"]
    with bench.site.database.read() as connection:
        told = events.after(connection, tenant, 0)
    assert [(each["kind"], each["facts"]["job"], each["facts"]["error"]) for each in told] == [
        ("job.failed", job, row["error"])
    ]


def test_what_is_cancelled_ends(bench: Bench) -> None:
    waiting, running, dead = (added(bench, Wish(kind)) for kind in ("recount", "verify", "copy"))
    bench.stop(waiting)
    assert bench.row(waiting)["state"] == "cancelled"
    mine = taken(bench, running)
    bench.stop(running)
    assert bench.beat(mine) is Sign.STOP
    taken(bench, dead)
    bench.stop(dead)
    bench.now += jobs.DEAD_SECONDS + 1
    assert bench.take(dead, "two") is None
    assert bench.row(dead)["state"] == "cancelled"


def test_once_is_once_and_next_is_let_go_of(bench: Bench) -> None:
    assert bench.add(Wish("tidy", once="tidy::7"))
    assert bench.add(Wish("tidy", once="tidy::7")) is None
    first = added(bench, Wish("forget", once=f"{jobs.NEXT}x"))
    assert bench.add(Wish("forget", once=f"{jobs.NEXT}x")) is None
    taken(bench, first)
    assert bench.add(Wish("forget", once=f"{jobs.NEXT}x"))


def test_a_clock_that_was_ahead_holds_nothing_up(bench: Bench) -> None:
    wish = Wish("forget", once=f"{jobs.NEXT}y", arguments={"vms": ["a"]})
    allowed = {"user:ann": 1}
    bench.now += 1e8
    running = taken(bench, added(bench))
    with bench.site.database.write() as connection:
        assert turns.take(connection, "ahead", bench.now, 60)
        jobs.extend(connection, wish, ("vms",), bench.now, 300)
        for _ in range(2):
            with contextlib.suppress(errors.TooOften):
                attempts.begin(connection, allowed, bench.now)
    bench.now -= 1e8
    with bench.site.database.write() as connection:
        assert turns.take(connection, "ahead", bench.now, 60)
        assert not turns.take(connection, "ahead", bench.now - 60, 60), "clocks differ a little"
        jobs.extend(connection, replace(wish, arguments={"vms": ["b"]}), ("vms",), bench.now, 300)
        attempts.begin(connection, allowed, bench.now)
    assert bench.due() == [running.id] and taken(bench, running.id, "two")
    [forget] = bench.of_kind("forget")
    assert (forget["due"], forget["arguments"]) == (bench.now + 300, {"vms": ["a", "b"]})


def test_what_comes_by_itself_comes_once_in_its_time(bench: Bench) -> None:
    keeper.think_of(bench.site)
    keeper.think_of(bench.site)
    assert len(bench.of_kind("tidy")) == 1
    bench.now += 600
    keeper.think_of(bench.site)
    assert len(bench.of_kind("tidy")) == 2


def test_repositories_are_looked_after_in_turn(bench: Bench) -> None:
    """Each has its time, and what needs the key of the structure comes where the server has it."""
    call = Call(Principal("", "site", Role.SITE, None), bench.now)
    with bench.site.database.write() as connection:
        tenant = tenants.create(connection, call, f"of {id(bench)}".replace(" ", "-"), None, None)
        admin = replace(call, who=Principal("", "admin", Role.ADMIN, tenant))
        shut, opened = (repositories.create(connection, admin, name) for name in ("shut", "opened"))
        change = tables.repositories.update().where(tables.repositories.c.id == opened)
        connection.execute(change.values(structure=b"sealed"))

    def thought_of() -> dict[tuple[str, str], int]:
        keeper.think_of(bench.site)
        keeper.think_of(bench.site)
        with bench.site.database.read() as connection:
            its = tables.jobs.c
            rows = connection.execute(select(its.kind, its.repository).where(its.tenant == tenant)).all()
        return dict(Counter((row.kind, row.repository) for row in rows))

    assert thought_of() == {}  # they are young
    bench.now += 3601
    first = {("recount", shut): 1, ("recount", opened): 1, ("gc", opened): 1, ("verify", opened): 1}
    assert thought_of() == first
    bench.now += 86400
    assert {key: count for key, count in thought_of().items() if key[0] != "verify"} == {
        key: 2 for key in first if key[0] != "verify"
    }
    bench.now += 6 * 86400
    assert thought_of()[("verify", opened)] == 2


def test_who_looks_at_a_quota_keeps_no_event_waiting(bench: Bench) -> None:
    """Who has the turn of events would wait for who waits for it."""
    database = bench.site.database
    with database.write() as connection:
        tenant = tenants.create(connection, Call(Principal("", "site", Role.SITE, None), bench.now), "full")
        connection.execute(update(tables.tenants).values(quota_vms=0, quota_bytes=1 << 30))
        admin, host = (Call(Principal("", "x", role, tenant), bench.now) for role in (Role.ADMIN, Role.HOST))
        place = repositories.get(connection, admin.who, repositories.create(connection, admin, "main"))
        if connection.dialect.name == "sqlite":
            return  # it has one writer at a time
    for look in (
        lambda connection: vms.seen(connection, host, {"web": None}),
        lambda connection: repositories.reserve(connection, place, 1),
    ):
        with database.write() as one, database.write() as other:
            look(one)
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            events.note(other, host, "backup.done", None, {})


@pytest.mark.parametrize("kind", sorted(kinds.ALL))
def test_every_kind_is_known_to_workers_and_documented(kind: str) -> None:
    assert kind in registry.RUNS
    assert f"| `{kind}` |" in (Path(__file__).parents[2] / "docs" / "server-jobs.md").read_text()


def test_a_newer_procrastinate_brings_its_tables_up_to_date(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgres.new_database())
    database.migrate()
    steps = {
        "02.00.00_01_past.sql": "SELECT 1 / 0",
        "98.00.00_01_pre_word.sql": "ALTER TYPE procrastinate_job_status ADD VALUE 'asleep'",
        "98.00.00_50_post_word.sql": "CREATE TABLE asleep AS SELECT 'asleep'::procrastinate_job_status AS word",
        "98.01.00_01_pre_more.sql": "INSERT INTO asleep VALUES ('todo')",
    }
    for name, script in steps.items():
        (tmp_path / name).write_text(script)
    monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "98.2.0")
    for _ in range(2):  # once is enough
        database.migrate()
    with database.read() as connection:
        words = connection.exec_driver_sql("SELECT word::text FROM asleep").scalars().all()
        assert words == ["asleep", "todo"]
    database.close()


def test_a_bell_is_there_exactly_where_its_job_is(postgres: Postgres) -> None:
    database = Database(postgres.new_database())
    database.migrate()
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        lost = jobs.add(connection, Wish("recount"), 1.0)
        raise ZeroDivisionError
    with database.write() as connection:
        assert engine.silent(connection, [str(lost)]) == [lost]
        job = jobs.add(connection, Wish("recount"), 1.0)
        assert job is not None
        assert engine.silent(connection, [job]) == []
        engine.ring(connection, job)  # it rings already
    database.close()


# -- workers


Act = Callable[[Beat], dict[str, Any]]


def worked(bench: Bench, monkeypatch: pytest.MonkeyPatch, act: Act, worker: Worker | None = None) -> dict[str, Any]:
    monkeypatch.setitem(registry.RUNS, "recount", lambda site, job, beat: act(beat))
    job = added(bench)
    assert (worker or Worker(bench.site)).perform(job)
    return bench.row(job)


def fails(error: Exception) -> Act:
    def act(beat: Beat) -> dict[str, Any]:
        raise error

    return act


def test_what_may_pass_is_tried_again_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    row = worked(bench, monkeypatch, fails(errors.StoreFailed("The store is away.")))
    assert (row["state"], row["attempts"], row["error"]) == ("waiting", 1, "The store is away.")
    assert row["due"] == bench.now + jobs.pause(1)
    for attempt in range(2, jobs.ATTEMPTS + 1):
        bench.now = bench.row(row["id"])["due"]
        assert Worker(bench.site).perform(row["id"])
        assert bench.row(row["id"])["attempts"] == attempt
    assert bench.row(row["id"])["state"] == "failed"


def test_what_does_not_pass_fails_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    row = worked(bench, monkeypatch, fails(errors.Usage("That cannot be.")))
    assert (row["state"], row["error"]) == ("failed", "That cannot be.")
    row = worked(bench, monkeypatch, fails(ZeroDivisionError("a secret of the program's")))
    assert row["state"] == "failed"
    assert "secret" not in row["error"]


def test_an_orderly_end_gives_it_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(bench.site)
    begun, row = threading.Event(), {}

    def act(beat: Beat) -> dict[str, Any]:
        begun.set()
        while True:
            beat("at work")

    thread = threading.Thread(target=lambda: row.update(worked(bench, monkeypatch, act, worker)))
    thread.start()
    assert begun.wait(20)
    worker.stop()
    thread.join(20)
    assert (row["state"], row["attempts"], row["lane"], row["due"]) == ("waiting", 0, None, bench.now)
    assert not worker.perform(row["id"])


def test_who_finds_it_lost_leaves_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was silent for too long, and another one has it."""
    monkeypatch.setattr(jobs, "BEAT_SECONDS", 0.01)

    def act(beat: Beat) -> dict[str, Any]:
        # Not by the clock: it gives signs meanwhile.
        with bench.site.database.write() as connection:
            connection.execute(tables.jobs.update().values(worker="another"))
        while True:
            beat("at work")

    row = worked(bench, monkeypatch, act)
    assert (row["state"], row["worker"]) == ("running", "another")
