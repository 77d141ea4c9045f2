"""Metrics, logs, health, and what happens with a bug."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headstart import errors
from headstart.server import room
from headstart.server.api import health
from headstart.server.database import Database
from headstart.server.metrics import Metrics
from headstart.server.room import Room
from headstart.server.settings import Settings
from headstart.server.site import open_site
from headstart.wire.https import Identity
from tests.kit.server import Person, Server, Tenant
from tests.kit.waiting import wait_until

BUG = "tests.kit.buggy"


@pytest.fixture(scope="module")
def tenant(server: Server) -> Tenant:
    made = server.tenant("watched")
    made.repository()
    host = made.host("alpha")
    machine = Person(Identity(host.url, host.token, host.fingerprint))
    view = {"state": "copying", "remaining_bytes": 4096}
    machine.post("/v1/host/pulse", {"version": "1", "state": {}, "vms": {"web": view, "idle": None}})
    disk = {"size": 100, "changed_bytes": 60, "precopied_bytes": 50, "residue_bytes": 10, "stored_bytes": 30}
    report = {"snapshot": "a" * 32, "vm": "web", "created": 1000.0, "consistency": "crash", "disks": [disk]}
    run = {"number": 1, "vm": "web", "verb": "backup", "begun": 990.0, "ended": 1001.0}
    machine.post("/v1/host/runs", {"runs": [{**run, "report": {**report, "window_seconds": 0.5}}]})
    return made


def scraped(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def line_of(server: Server, request: str, has: str = "route") -> dict[str, Any]:
    """Every line is an object. It is written when the answer is out already."""
    end = time.monotonic() + 10
    while True:
        lines = [json.loads(line) for line in server.log().splitlines()]
        for each in lines:
            if each.get("request") == request and has in each:
                return dict(each)
        assert time.monotonic() < end, "nothing of it is in the log"
        time.sleep(0.05)


def test_the_sites_metrics_are_for_who_can_read_its_data(server: Server, tenant: Tenant) -> None:
    token = (server.folder / "metrics.token").read_text()
    assert (server.folder / "metrics.token").stat().st_mode & 0o777 == 0o600
    for given in ("", "Bearer wrong", f"Basic {token}"):
        assert Person(server.identity).ask("GET", "/metrics", headers={"Authorization": given}).status == 401
    assert tenant.admin.ask("GET", "/metrics").status == 401
    answer = Person(server.identity).ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    found = scraped(answer.data)
    assert found["headstart_server_vms", (("tenant", "watched"),)] == 2
    assert found["headstart_server_vms_late", (("tenant", "watched"),)] == 2
    assert found["headstart_server_oldest_success_timestamp_seconds", (("tenant", "watched"),)] == 1000
    assert found["headstart_server_hosts", ()] >= 1 and found["headstart_server_database_up", ()] == 1
    pulses = (("method", "POST"), ("route", "/v1/host/pulse"), ("status", "200"))
    assert found["headstart_server_request_seconds_count", pulses] >= 1
    # No name of a VM or a host: whoever watches the site does not see into tenants.
    assert b"web" not in answer.data and b"alpha" not in answer.data


def test_what_strangers_send_makes_no_metrics_of_its_own(server: Server) -> None:
    def page() -> dict[Any, float]:
        token = (server.folder / "metrics.token").read_text()
        return scraped(
            Person(server.identity).ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"}).data
        )

    nobody = Person(server.identity)
    assert [nobody.ask(f"M{number}", f"/nowhere/{number}?{number}").status for number in range(5)] == [404] * 5
    assert [nobody.ask(f"M{number}", "/v1/session").status for number in range(5)] == [405] * 5
    labels = [dict(told) for name, told in page() if name == "headstart_server_request_seconds_count"]
    assert {each["method"] for each in labels} <= {"GET", "POST", "PUT", "DELETE", "other"}
    assert {"none", "/v1/session"} >= {each["route"] for each in labels if each["method"] == "other"} > set()


def test_a_tenants_metrics_are_of_its_vms(server: Server, tenant: Tenant) -> None:
    found = scraped(tenant.program("viewer").ask("GET", "/v1/metrics").data)
    web = (("host", "alpha"), ("vm", "web"))
    assert found["headstart_vm_last_success_timestamp_seconds", web] == 1000
    assert found["headstart_vm_window_seconds", web] == 0.5 and found["headstart_vm_residue_bytes", web] == 10
    assert found["headstart_vm_changed_bytes", web] == 60 and found["headstart_vm_remaining_bytes", web] == 4096
    assert found["headstart_vm_failing", (("host", "alpha"), ("vm", "idle"))] == 0
    other = server.tenant("unwatched")
    assert b"web" not in other.admin.ask("GET", "/v1/metrics").data


def test_each_request_is_a_line_of_the_log_and_says_who_by_id_alone(server: Server, tenant: Tenant) -> None:
    answer = tenant.admin.ask("GET", "/v1/vms?limit=7", headers={"X-Request-Id": "from-a-client.1"})
    assert answer.headers["x-request-id"] == "from-a-client.1"
    line = line_of(server, "from-a-client.1")
    assert (line["route"], line["status"], line["tenant"]) == ("/v1/vms", 200, tenant.id)
    assert line["who"] and line["sent"] == len(answer.data) and line["seconds"] > 0
    text = server.log()
    assert "watched-admin" not in text and "Bearer" not in text and "a password of theirs" not in text


@pytest.mark.parametrize("told", ["x" * 65, "a b", 'quote"', "é"])
def test_a_request_id_that_cannot_stand_in_a_log_is_replaced(server: Server, told: str) -> None:
    answer = Person(server.identity).ask("GET", "/v1/health/live", headers={"X-Request-Id": told})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_health_is_for_everybody_and_tells_little(server: Server) -> None:
    for path, told in (("/v1/health/live", {"version"}), ("/v1/health/ready", {"version", "state"})):
        answer = Person(server.identity).ask("GET", path)
        assert answer.status == 200 and set(answer.json()) == told


@pytest.mark.parametrize(
    ("changed", "full"),
    [
        ({}, False),
        ({"free": room.RESERVE_BYTES - 1}, True),
        ({"files": 10}, True),
        ({"files": None}, False),
        ({"read_only": True}, True),
    ],
)
def test_a_disk_without_room_makes_a_server_not_ready_where_its_database_is(
    changed: dict[str, Any], full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(Room(room.DATA, 1 << 40, 1 << 41, 10**6, False), **changed)
    monkeypatch.setattr(room, "look", lambda _site: [found])
    site = open_site(Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects")))
    if full:
        with pytest.raises(errors.NoSpace):
            health.ready(site)
    else:
        assert health.ready(site)["state"] == "ok"
    monkeypatch.setattr(Database, "is_sqlite", False)  # elsewhere: then nothing of it is here
    assert health.ready(site)["state"] == ("degraded" if full else "ok")


def test_a_bug_is_told_by_the_id_of_its_request_and_no_more(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Server(tmp_path_factory.mktemp("buggy"), program=BUG) as server:
        answer = server.site().ask("GET", "/v1/tenants", headers={"X-Request-Id": "unlucky"})
        assert answer.status == 500 and answer.headers["content-type"] == "application/problem+json"
        assert "unlucky" in answer.detail and "secret detail" not in answer.data.decode()
        line = line_of(server, "unlucky", "exception")
        assert "secret detail" in line["exception"]
        token = (server.folder / "metrics.token").read_text()
        page = Person(server.identity).ask("GET", "/metrics", headers={"Authorization": f"Bearer {token}"}).data
        assert scraped(page)["headstart_server_bugs_total", ()] == 1


def test_a_server_that_is_behind_asks_hosts_to_wait_longer(server: Server) -> None:
    """Pulses of many hosts that come slowly, as over a link that is full, are under way all the time."""
    tenant = server.tenant("behind")
    tenant.repository()
    joined = [tenant.host(f"slow{number}") for number in range(4)]
    machine = Person(Identity(joined[0].url, joined[0].token, joined[0].fingerprint))
    pulse = {"version": "1", "vms": {"web": {"state": "idle"}}}
    assert machine.post("/v1/host/pulse", pulse)["next"] == 15.0
    body = json.dumps(pulse).encode()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    links: list[http.client.HTTPSConnection] = []
    for number in range(48):
        link = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=60)
        link.putrequest("POST", "/v1/host/pulse")
        link.putheader("Authorization", f"Bearer {joined[number % 4].token}")
        link.putheader("Content-Type", "application/json")
        link.putheader("Content-Length", str(len(body)))
        link.endheaders(body[:-1])
        links.append(link)
    wait_until(lambda: machine.post("/v1/host/pulse", pulse)["next"] > 40.0)
    for link in links:
        link.send(body[-1:])
        with link.getresponse() as answer:
            assert answer.status == 200 and answer.read()
        link.close()
    assert wait_until(lambda: machine.post("/v1/host/pulse", pulse)["next"] == 15.0)


def test_the_more_piles_up_the_longer_hosts_wait(tmp_path: Path) -> None:
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    metrics = Metrics(open_site(settings))
    found = []
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(metrics.working())
            found.append(metrics.stretch)
    assert (found[0], found[15], found[31], found[-1]) == (1.0, 1.0, 2.0, 8.0)
    assert metrics.stretch == 1.0
