"""Who is told of what: once, together, and nowhere that is the server's own network."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from headstart.server import (
    dumps,
    events,
    herald,
    heralds,
    lapses,
    notices,
    repositories,
    tables,
    telling,
    tenants,
    vms,
)
from headstart.server.call import Call
from headstart.server.events import Event
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site
from headstart.wire.https import Identity
from tests.kit.postgres import Postgres
from tests.kit.receivers import Mail, Webhook
from tests.kit.server import Person, Server


class Bench:
    """A site with a tenant, and its clock."""

    def __init__(self, site: Site) -> None:
        self.now = 1_700_000_000.0  # 22:13 UTC
        self.site = replace(site, clock=lambda: self.now)
        with self.site.database.write() as connection:
            root = Call(Principal("root", "root", Role.SITE, None), self.now)
            self.tenant = tenants.create(connection, root, "acme")
            self.repository = repositories.create(connection, self.call, "main")

    @property
    def call(self) -> Call:
        return Call(Principal("ann", "ann", Role.ADMIN, self.tenant), self.now)

    def happens(self, *found: Event) -> None:
        with self.site.database.write() as connection:
            events.note_all(connection, self.call, found)

    def row(self) -> dict[str, Any]:
        with self.site.database.read() as connection:
            return dict(connection.execute(select(tables.notices)).mappings().one())

    def kinds(self) -> list[tuple[str, str | None]]:
        with self.site.database.read() as connection:
            return [(each["kind"], each["vm"]) for each in events.after(connection, self.tenant, 0)]

    def host(self, name: str, seen: float) -> str:
        values = {"tenant": self.tenant, "repository": self.repository, "name": name, "installation": "x"}
        with self.site.database.write() as connection:
            fixed = {"id": f"id of {name}", "version": "1", "created": 0.0, "state": {}}
            connection.execute(insert(tables.hosts).values(**values, **fixed, seen=seen))
        return f"id of {name}"

    def vm(self, host: str, name: str, view: dict[str, Any] | None) -> None:
        values = {"tenant": self.tenant, "host": host, "name": name, **vms.told_by(view)}
        with self.site.database.write() as connection:
            connection.execute(insert(tables.vms).values(id=f"id of {name}", created=0.0, seen=self.now, **values))

    def change(self, table: str, **values: object) -> None:
        with self.site.database.write() as connection:
            connection.execute(update(tables.metadata.tables[table]).values(**values))


def bench_of(folder: Path, database: str = "") -> Bench:
    settings = Settings(folder, database or f"sqlite:///{folder / 'server.db'}", str(folder / "objects"))
    return Bench(open_site(replace(settings, notices_private=True)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_of(tmp_path)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


FAILED = Event("backup.failed", "web", {"error": "The disk\nis\x1b[2J full."})


def test_what_happens_is_told_once_and_together(bench: Bench, webhook: Webhook) -> None:
    bench.happens(Event("backup.failed", "before", {}))
    with Mail() as mail:
        notices.put(bench.site, bench.call, [webhook.url, mail.url], ["backup.failed"], None)
        assert telling.tell(bench.site) == 0, "what was before is not told"
        bench.happens(
            FAILED, Event("backup.done", "web", {}), *[Event("backup.failed", f"vm{n}", {}) for n in range(99)]
        )
        assert telling.tell(bench.site) == 1
        assert telling.tell(bench.site) == 0
        told = webhook.taken.get(timeout=10)
        assert told["title"] == "Headstart: backup failed (100)"
        assert "web on ann: The disk is?[2J full." in told["message"]
        assert "and 70 more" in told["message"] and "before" not in told["message"]
        assert "Headstart: backup failed (100)" in mail.taken.get(timeout=10)
    assert webhook.taken.empty() and bench.row()["error"] is None


def test_messages_keep_a_distance_and_nothing_is_lost(bench: Bench, webhook: Webhook) -> None:
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], None)
    for name in ("one", "two", "three"):
        bench.happens(Event("backup.failed", name, {}))
        telling.tell(bench.site)
    assert "one" in webhook.taken.get(timeout=10)["message"] and webhook.taken.empty()
    bench.now += telling.GATHER_SECONDS + 1
    telling.tell(bench.site)
    told = webhook.taken.get(timeout=10)["message"]
    assert "two" in told and "three" in told and "one" not in told
    # The clock was ahead, and is put back, also while somebody was at it.
    bench.now -= 86400
    for claimed in (0.0, bench.row()["due"]):
        bench.change("notices", claimed=claimed)
        bench.happens(Event("backup.failed", "four", {}))
        assert telling.tell(bench.site) == 1 and "four" in webhook.taken.get(timeout=10)["message"]
        bench.now -= 86400


def test_what_one_address_took_is_not_sent_there_again(bench: Bench, webhook: Webhook) -> None:
    with Webhook() as broken:
        broken.status = 503
        notices.put(bench.site, bench.call, [webhook.url, broken.url], ["backup.failed"], None)
        bench.happens(FAILED)
        telling.tell(bench.site)
        assert webhook.taken.get(timeout=10) and bench.row()["remaining"] == [1]
        assert "secret" not in (bench.row()["error"] or "secret")
        bench.happens(Event("backup.failed", "later", {}))
        assert telling.tell(bench.site) == 0, "not before its time"
        broken.status = 200
        bench.now += telling.AGAIN_SECONDS + 1
        telling.tell(bench.site)
        assert "web" in broken.taken.get(timeout=10)["message"] and webhook.taken.empty()
        bench.now += telling.GATHER_SECONDS + 1
        telling.tell(bench.site)
        assert "later" in webhook.taken.get(timeout=10)["message"] and broken.taken.get(timeout=10)


def test_what_nobody_ever_takes_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    notices.put(bench.site, bench.call, ["json://127.0.0.1:9/"], ["backup.failed"], None)
    sent: list[str] = []

    def fail(urls: list[str], *_: object, private: bool) -> list[str]:
        sent.extend(urls)
        return ["away"] * len(urls)

    monkeypatch.setattr(heralds, "send", fail)
    bench.happens(FAILED)
    while bench.row()["cursor"] == 0:
        telling.tell(bench.site)
        bench.now += telling.AGAIN_AT_MOST + 1
    assert len(sent) == telling.ATTEMPTS and "Given up" in bench.row()["error"]


def test_a_claim_of_a_process_that_died_ends(bench: Bench, webhook: Webhook) -> None:
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], None)
    bench.happens(FAILED)
    assert telling._claim(bench.site, bench.tenant) is not None
    assert telling.tell(bench.site) == 0
    bench.now += telling.CLAIM_SECONDS + 1
    assert telling.tell(bench.site) == 1 and webhook.taken.get(timeout=10)


def test_processes_on_postgresql_tell_once(postgres: Postgres, tmp_path: Path, webhook: Webhook) -> None:
    bench = bench_of(tmp_path, postgres.new_database())
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed", "host.away"], None)
    host = bench.host("alpha", seen=0.0)
    bench.vm(host, "web", {"due": 1.0, "doing": {"verb": "backup", "since": bench.now}})
    barrier = threading.Barrier(4)

    def one() -> None:
        barrier.wait()
        lapses.look(bench.site)
        barrier.wait()
        telling.tell(bench.site)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(bench.kinds()) == [("backup.late", "web"), ("host.away", None)]
    assert "alpha" in webhook.taken.get(timeout=10)["message"] and webhook.taken.empty()


def test_a_database_that_was_restored_goes_on_telling(bench: Bench, webhook: Webhook) -> None:
    bench.happens(*[Event("backup.failed", f"vm{n}", {}) for n in range(20)])
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], None)
    name = dumps.make(bench.site)
    settings = replace(bench.site.settings, database=f"sqlite:///{bench.site.settings.data / 'other.db'}")
    other = Bench.__new__(Bench)
    other.now, other.tenant, other.repository = bench.now, bench.tenant, bench.repository
    other.site = replace(open_site(settings), clock=lambda: other.now)
    dumps.restore(other.site, name)
    other.happens(FAILED)
    assert telling.tell(other.site) == 1 and "web" in webhook.taken.get(timeout=10)["message"]


def test_one_tenant_is_not_in_the_way_of_another(
    bench: Bench, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_MOST_TENANTS", 2)
    own = bench.tenant
    for name in ("asleep1", "asleep2", "sealed-otherwise"):
        with bench.site.database.write() as connection:
            root = Call(Principal("root", "root", Role.SITE, None), bench.now)
            bench.tenant = tenants.create(connection, root, name)
        hours = notices.Quiet(0, 1439) if name.startswith("asleep") else None
        notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], hours)
        bench.happens(FAILED)
    bench.change("notices", urls=b"sealed with another key, that is lost by now")
    bench.tenant = own
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], None)
    bench.happens(FAILED)
    assert telling.tell(bench.site) == 1 and webhook.taken.get(timeout=10)


def test_in_quiet_hours_nothing_is_sent(bench: Bench, webhook: Webhook) -> None:
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], notices.Quiet(22 * 60, 6 * 60))
    bench.happens(FAILED)
    assert telling.tell(bench.site) == 0 and webhook.taken.empty()
    bench.now += 8 * 3600
    assert telling.tell(bench.site) == 1 and webhook.taken.get(timeout=10)


def test_what_was_held_back_is_told_though_somebody_changes_who_is(bench: Bench, webhook: Webhook) -> None:
    with Webhook() as another, Webhook() as third:
        notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], notices.Quiet(22 * 60, 23 * 60))
        bench.happens(FAILED)
        assert telling.tell(bench.site) == 0
        notices.add(bench.site, bench.call, another.url)
        notices.put(bench.site, bench.call, None, ["backup.failed", "host.away"], None)
        assert telling.tell(bench.site) == 1
        assert webhook.taken.get(timeout=10) == another.taken.get(timeout=10)
        # What an address did not take yet is tried again there, whatever its number is now, and with the others not.
        bench.now += 3600
        another.status = 500
        bench.happens(FAILED)
        telling.tell(bench.site)
        webhook.taken.get(timeout=10)
        notices.drop(bench.site, bench.call, 0, notices.masked(webhook.url))
        notices.add(bench.site, bench.call, third.url)
        row = bench.row()
        assert (row["remaining"], row["failures"]) == ([0], 1) and row["error"]
        another.status = 200
        assert telling.tell(bench.site) == 1
        another.taken.get(timeout=10)
        assert third.taken.empty() and webhook.taken.empty()
        # Once the address that did not take it is gone, nothing is owed to anybody.
        bench.now += 3600
        another.status = 500
        bench.happens(FAILED)
        telling.tell(bench.site)
        notices.drop(bench.site, bench.call, 0, notices.masked(another.url))
        assert (bench.row()["remaining"], bench.row()["error"], telling.tell(bench.site)) == (None, None, 0)


def test_of_two_who_add_an_address_at_once_none_is_lost(
    bench: Bench, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=20)

    def check(urls: object) -> list[str]:
        both.wait()
        return [""]

    monkeypatch.setattr(heralds, "check", check)
    other = bench_of(tmp_path / "postgres", postgres.new_database())
    for each in (bench, other):
        threads = [
            threading.Thread(target=notices.add, args=(each.site, each.call, f"json://example.com/{name}"))
            for name in ("one", "two")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(notices.urls_of(each.site, each.row())) == ["json://example.com/one", "json://example.com/two"]


@pytest.mark.parametrize(
    ("begin", "end", "minute", "holds"),
    [(60, 120, 60, True), (60, 120, 120, False), (1320, 360, 1380, True), (1320, 360, 360, False), (5, 5, 5, False)],
)
def test_quiet_hours_are_those_of_a_time_zone(begin: int, end: int, minute: int, holds: bool) -> None:
    assert notices.Quiet(begin, end).holds(minute * 60.0) is holds
    # New York is five hours behind in January.
    assert notices.Quiet(begin, end, "America/New_York").holds((minute + 300) * 60.0) is holds


# what nobody reports


def test_hosts_that_are_away_are_told_of_once_and_when_they_are_back(bench: Bench) -> None:
    bench.host("alpha", seen=bench.now - lapses.AWAY_SECONDS - 1)
    bench.host("beta", seen=bench.now)
    assert lapses.look(bench.site) == 1
    assert lapses.look(bench.site) == 0
    assert bench.kinds() == [("host.away", None)]
    bench.change("hosts", seen=bench.now)
    assert lapses.look(bench.site) == 1
    assert bench.kinds() == [("host.away", None), ("host.back", None)]
    bench.change("hosts", state={"left": 1.0}, seen=0.0)
    assert lapses.look(bench.site) == 0


def test_backups_that_are_late(bench: Bench) -> None:
    host = bench.host("alpha", seen=bench.now)
    past = bench.now - 7200
    bench.vm(host, "late", {"due": past, "doing": None})
    bench.vm(host, "soon", {"due": bench.now - 60})
    bench.vm(host, "at-it", {"due": past, "doing": {"verb": "backup", "since": past}})
    bench.vm(host, "publishes", {"due": past, "doing": {"verb": "publish", "since": past}})
    bench.vm(host, "paused", {"due": past, "state": "paused"})
    bench.vm(host, "none", None)
    odds: list[dict[str, Any]] = [{}, {"due": [past]}, {"due": "soon"}, {"due": True}, {"due": past, "doing": 3}]
    for number, odd in enumerate(odds):
        bench.vm(host, f"odd{number}", odd)
    lapses.look(bench.site)
    assert sorted(bench.kinds()) == [("backup.late", "late"), ("backup.late", "odd4")]
    bench.change("vms", **vms.told_by({"due": past, "doing": {"verb": "backup", "since": bench.now}}))
    assert lapses.look(bench.site) == 0, "what is tried again is late until it is done"
    bench.change("vms", **vms.told_by({"due": bench.now + 60}))
    lapses.look(bench.site)
    assert ("backup.caught-up", "late") in bench.kinds()


@pytest.mark.parametrize("how", ["it takes days", "the host is away", "it is not told of", "nobody knows since when"])
def test_a_backup_under_way_excuses_what_is_late_while_it_is_news(bench: Bench, how: str) -> None:
    host = bench.host("alpha", seen=bench.now)
    past = bench.now - 7200
    bench.vm(host, "web", {"due": past, "doing": {"verb": "backup", "since": past}})
    assert lapses.look(bench.site) == 0
    if how == "it takes days":
        bench.now += 30 * 86400
        bench.change("hosts", seen=bench.now)
        bench.change("vms", seen=bench.now)
    elif how == "the host is away":
        bench.now += lapses.AWAY_SECONDS + 1
    elif how == "it is not told of":
        bench.now += vms.UNTOLD_SECONDS + 1
        bench.change("hosts", seen=bench.now)
    else:
        bench.change("vms", **vms.told_by({"due": past, "doing": {"verb": "backup", "since": "then"}}))
    lapses.look(bench.site)
    assert ("backup.late", "web") in bench.kinds()


def test_of_several_processes_one_looks_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []
    monkeypatch.setattr(lapses, "look", lambda site: looked.append(site.clock()))
    for seconds in (0, 1, 59, 60, 118):
        for _process in range(2):
            telling.look(replace(bench.site, clock=lambda now=seconds: 1e9 + now))  # type: ignore[misc]
    assert looked == [1e9, 1e9 + 59, 1e9 + 118]


def test_a_quota_that_fills_up(bench: Bench) -> None:
    bench.change("tenants", quota_bytes=1000)
    bench.change("repositories", used_bytes=899)
    assert lapses.look(bench.site) == 0
    bench.change("repositories", used_bytes=900)
    assert lapses.look(bench.site) == 1
    # It does not come and go with each object.
    for used in (899, 901, 870):
        bench.change("repositories", used_bytes=used)
        assert lapses.look(bench.site) == 0
    bench.change("repositories", used_bytes=100)
    lapses.look(bench.site)
    bench.change("repositories", used_bytes=950)
    assert lapses.look(bench.site) == 1
    assert bench.kinds() == [("quota.near", None)] * 2


def test_the_thread_looks_and_tells(bench: Bench, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "LOOK_SECONDS", 0.05)
    notices.put(bench.site, bench.call, [webhook.url], ["host.away"], None)
    bench.host("alpha", seen=1.0)
    teller = telling.Teller(bench.site, settle=0.0)
    teller.start()
    try:
        assert webhook.taken.get(timeout=30)["title"] == "Headstart: host away"
    finally:
        teller.stop()


# where it must not go


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "::1"),
        *("::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
        *("fec0::1", "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b:1::7f00:1"),
        *("224.0.0.1", "ff02::1", "255.255.255.255", "localhost", "example.org", ""),
    ],
)
def test_no_public_address(address: str) -> None:
    assert not herald.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert herald.is_public(address)


def test_nothing_reaches_the_servers_own_network(webhook: Webhook) -> None:
    port = webhook.url.split(":")[2].split("/")[0]
    with Mail() as mail:
        urls = [webhook.url, f"json://localhost:{port}/", mail.url]
        results = heralds.send(urls, "t", "b", private=False)
        assert all("not public" in each for each in results), results
        assert heralds.send(urls, "t", "b", private=True) == ["", "", ""]
        assert mail.taken.get(timeout=10)
    assert webhook.taken.get(timeout=10) and webhook.taken.get(timeout=10) and webhook.taken.empty()


#: As if this address of ours were one of the public network's.
PUBLIC = """
from headstart.server import herald
herald.is_public = lambda address: address == "127.0.0.1"
herald.main()
"""


def test_a_public_one_leads_nowhere_else(webhook: Webhook) -> None:
    def send() -> str:
        asked = {"urls": [webhook.url], "title": "t", "body": "b"}
        done = subprocess.run(
            [sys.executable, "-c", PUBLIC], input=json.dumps(asked), capture_output=True, text=True, timeout=60, cwd="/"
        )
        return str(json.loads(done.stdout)["results"][0])

    assert send() == ""
    assert webhook.taken.get(timeout=10)
    port = webhook.url.split(":")[2].split("/")[0]
    webhook.status = 307  # a redirection that is followed with all that was sent
    for private in ("127.0.0.2", "169.254.169.254", "10.0.0.1"):
        webhook.location = f"http://{private}:{port}/secret-path"
        assert "not public" in send(), private
    # It is the address that counts, and not that there was a redirection.
    with Webhook() as other:
        webhook.location = other.url.replace("json://", "http://")
        assert send() == ""
        assert other.taken.get(timeout=10)


def test_no_file_and_no_program_of_the_server(tmp_path: Path) -> None:
    secret = tmp_path / "server.key"
    secret.write_text('{"a": "secret"}')
    url = f"workflow://127.0.0.1:9/{'a' * 32}/{'b' * 44}/?template={secret}"
    results = heralds.send([url, "syslog://", f"file://{secret}", "nothing"], "t", "b", private=True)
    assert "a file of the server's" in results[0], results
    assert all("No address of a kind" in each for each in results[1:])


def test_a_receiver_that_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(heralds, "SECONDS", 20.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert heralds.send([f"json://127.0.0.1:{port}/"], "t", "b", private=True) != [""]


#: In a process of its own: apprise loads all that it has.
PLUGINS = """
import importlib
from apprise.plugins import N_MGR
from headstart.server import heralds
for scheme, place in heralds.PLUGINS.items():
    module, _, name = place.rpartition(".")
    assert getattr(importlib.import_module(f"apprise.plugins.{module}"), name) is N_MGR[scheme], scheme
"""


def test_each_scheme_is_what_apprise_has_for_it() -> None:
    subprocess.run([sys.executable, "-c", PLUGINS], check=True, timeout=60)


@pytest.mark.parametrize("url", ["json://", "mailto://nobody", "tgram://x", "slack://a/b"])
def test_what_is_no_address_of_its_kind_is_told(url: str) -> None:
    assert heralds.check(["jsons://example.org/a#b", url]) == ["", "It is no address as apprise writes them."]


# over the API


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("open"), ("--notices-private",)) as running:
        yield running


def test_addresses_are_shown_without_what_is_secret(open_server: Server, webhook: Webhook) -> None:
    tenant = open_server.tenant("shown")
    assert tenant.admin.get("/v1/notices")["urls"] == []
    assert tenant.admin.ask("POST", "/v1/notices/test").status == 404
    urls = [webhook.url, "ntfy://my-secret-topic"]
    tenant.admin.put("/v1/notices", {"urls": urls[:1], "kinds": ["quota"]})
    tenant.admin.put("/v1/notices", {"urls": None, "kinds": ["host.away"], "quiet": {"begin": 0, "end": 60}})
    found = tenant.admin.get("/v1/notices")
    assert found["urls"] == ["json://127.0.0.1..."] and found["kinds"] == ["host.away"]
    assert notices.masked(urls[1]) == "ntfy://..."
    assert tenant.admin.post("/v1/notices/test", None) == [{"url": "json://127.0.0.1...", "error": ""}]
    assert "shown-admin" in webhook.taken.get(timeout=10)["message"]
    entry = next(each for each in tenant.admin.get("/v1/audit") if each["act"] == "notices.set")
    assert "secret-path" not in str(entry)
    assert b"secret-path" not in (open_server.folder / "server.db").read_bytes()


def test_what_cannot_be_told_is_refused(open_server: Server) -> None:
    admin = open_server.tenant("refused").admin
    for wanted in ({"urls": ["syslog://"]}, {"urls": [], "kinds": ["nothing"]}, {"urls": ["json://"]}):
        assert admin.ask("PUT", "/v1/notices", wanted).status == 400, wanted
    assert (
        admin.ask("PUT", "/v1/notices", {"urls": [], "quiet": {"begin": 0, "end": 1, "zone": "Nowhere"}}).status == 400
    )
    assert admin.ask("PUT", "/v1/notices", {"urls": ["json://a.example"] * 11}).status == 422


def test_notices_are_the_admins_alone(open_server: Server) -> None:
    tenant = open_server.tenant("closed")
    tenant.repository()
    host = tenant.host("alpha")
    machine = Person(Identity(host.url, host.token, host.fingerprint))
    for who in (tenant.program("viewer"), tenant.program("operator"), machine, open_server.site()):
        assert who.ask("GET", "/v1/notices").status == 403
        assert who.ask("PUT", "/v1/notices", {"urls": []}).status == 403
        assert who.ask("POST", "/v1/notices/test").status == 403


def test_a_server_that_was_not_told_so_does_not_send_into_its_own_network(server: Server, webhook: Webhook) -> None:
    admin = server.tenant("inward").admin
    admin.put("/v1/notices", {"urls": [webhook.url]})
    assert "not public" in admin.post("/v1/notices/test", None)[0]["error"]
    assert webhook.taken.empty()


def test_every_kind_has_words() -> None:
    assert {event for found in notices.KINDS.values() for event in found} == set(telling._WORDS)


def test_the_queue_is_of_the_tenant(bench: Bench, webhook: Webhook) -> None:
    notices.put(bench.site, bench.call, [webhook.url], ["backup.failed"], None)
    with bench.site.database.write() as connection:
        root = Call(Principal("root", "root", Role.SITE, None), bench.now)
        other = tenants.create(connection, root, "other")
        events.note(
            connection, replace(bench.call, who=replace(bench.call.who, tenant=other)), "backup.failed", "x", {}
        )
    assert telling.tell(bench.site) == 0
    with pytest.raises(queue.Empty):
        webhook.taken.get(timeout=0.1)
