"""Those who watch see what happens as it happens, through any process, and miss nothing when they come again."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from headstart.host.remote import Remote
from headstart.state.values import Run
from headstart.wire.https import Client
from tests.kit.server import PASSWORD, Person, Server, Tenant
from tests.kit.waiting import wait_until

VIEW = {"policy": "gold", "doing": {"verb": "backup", "what": "copying", "done": 1, "total": 10}}


class Watching:
    """What one watcher has been told: pairs of kind and value."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        self.beats = 0
        self.last = ""
        self.told: dict[str, queue.Queue[Any]] = {"happened": queue.Queue(), "live": queue.Queue()}
        self.ended = threading.Event()
        self.ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        kind, rest = "", b""
        with contextlib.suppress(Exception):
            while piece := self._answer.read1(65536):
                *lines, rest = (rest + piece).split(b"\n")
                for line in map(bytes.decode, lines):
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "id":
                        self.last = value
                    elif name == "data":
                        self.told[kind].put(json.loads(value))
                    elif line.startswith(":"):
                        self.beats += 1
                        self.ready.set()
        self.ended.set()

    def next(self, kind: str, seconds: float = 30.0) -> Any:
        return self.told[kind].get(timeout=seconds)

    def close(self) -> None:
        self._answer.close()


@contextlib.contextmanager
def watching(person: Person, **headers: str) -> Iterator[Watching]:
    answer = person.client.open("GET", "/v1/events/stream", None, {**person.headers, **headers}, 60.0)
    assert answer.status == 200, answer.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    made = Watching(answer)
    assert made.ready.wait(20)
    try:
        yield made
    finally:
        made.close()


def run(number: int, **report: Any) -> Run:
    return Run(number, "web", "backup", 1e9 + number, 1e9 + number + 1, report)


@pytest.fixture(scope="module")
def tenant(pair: tuple[Server, Server]) -> Tenant:
    made = pair[0].tenant("watched")
    made.repository()
    return made


def test_what_one_process_hears_those_at_the_other_see(pair: tuple[Server, Server], tenant: Tenant) -> None:
    there = Person(pair[1].identity, "watched-admin", PASSWORD)
    host = Remote(tenant.host())
    with watching(there) as two, watching(tenant.admin) as one:
        host.pulse({}, {"web": VIEW}, {})
        host.runs([run(1, snapshot="s"), run(2, error="it failed")])
        for each in (one, two):
            live = each.next("live")
            assert live["name"] == "web" and live["view"]["doing"]["total"] == 10
            kinds = [each.next("happened")["kind"] for _ in range(2)]
            assert kinds == ["backup.done", "backup.failed"]
        host.pulse({}, {"web": {**VIEW, "doing": {**VIEW["doing"], "done": 5}}}, {})  # type: ignore[dict-item]
        assert two.next("live")["view"]["doing"]["done"] == 5
        host.pulse({}, {"web": {**VIEW, "doing": None}}, {})
        assert two.next("live")["over"]
        last = two.last
    host.runs([run(3), run(4)])
    # It comes again, to the other process.
    with watching(tenant.admin, **{"Last-Event-ID": last}) as again:
        numbers = [again.next("happened")["facts"]["run"] for _ in range(2)]
        assert numbers == [3, 4]
        host.runs([run(5)])
        assert again.next("happened")["facts"]["run"] == 5


def test_many_hosts_at_once_and_nobody_misses_one(pair: tuple[Server, Server], tenant: Tenant) -> None:
    """Events get their numbers in transactions that end in any order."""
    there = Person(pair[1].identity, "watched-admin", PASSWORD)
    members = [tenant.host(f"many{number}") for number in range(6)]
    with watching(there) as watched:

        def tell(index: int) -> None:
            member = members[index]
            url = pair[index % 2].identity.url
            host = Remote(type(member)(**{**{name: getattr(member, name) for name in member.__slots__}, "url": url}))
            for number in range(1, 13):
                host.runs([run(10 * number + each) for each in range(3)])

        threads = [threading.Thread(target=tell, args=(index,)) for index in range(len(members))]
        for thread in threads:
            thread.start()
        found = [watched.next("happened", 90)["id"] for _ in range(6 * 12 * 3)]
        for thread in threads:
            thread.join()
    assert found == sorted(set(found))
    page = tenant.admin.get(f"/v1/events?after={found[0] - 1}&limit=1000")
    assert [each["id"] for each in page] == found


def test_another_tenant_sees_nothing_of_it(pair: tuple[Server, Server], tenant: Tenant) -> None:
    stranger = pair[0].tenant("elsewhere").admin
    with watching(stranger) as watched:
        host = Remote(tenant.host("beta"))
        host.pulse({}, {"web": VIEW}, {})
        host.runs([run(1)])
        time.sleep(2.5)
        assert all(each.empty() for each in watched.told.values())
    assert pair[0].site().ask("GET", "/v1/events/stream").status == 403
    assert Person(pair[0].identity).ask("GET", "/v1/events/stream").status == 401
    assert tenant.admin.ask("GET", "/v1/events/stream", None, {"Last-Event-ID": "x"}).status == 400


def test_a_server_that_is_stopped_waits_for_nobody_who_watches(server: Server) -> None:
    tenant = server.tenant("stopping")
    idle = Client(server.identity)
    assert idle.request("GET", "/v1/health/live").status == 200
    with watching(tenant.admin) as watched:
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 10
        wait_until(watched.ended.is_set)
    server.start()
