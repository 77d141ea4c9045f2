"""How often somebody may ask: who is known by name, others by address, wrong passwords over all processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from headstart import errors
from headstart.server import attempts, limits
from headstart.server.limits import Buckets, Rate
from tests.kit.server import Person, Server


def test_a_bucket_lets_through_its_burst_and_then_its_rate() -> None:
    now = [0.0]
    bucket = Buckets(Rate(2.0, 3.0), lambda: now[0])
    for _ in range(3):
        bucket.take("a")
    with pytest.raises(errors.TooOften) as told:
        bucket.take("a")
    assert told.value.facts["seconds"] == 1
    bucket.take("b")
    now[0] += 0.5
    bucket.take("a")
    with pytest.raises(errors.TooOften):
        bucket.take("a")
    now[0] += 3600
    for _ in range(3):
        bucket.take("a")


def test_buckets_stay_bounded() -> None:
    now = [0.0]
    bucket = Buckets(Rate(1.0, 2.0), lambda: now[0])
    for number in range(3 * limits._KEPT):
        bucket.take(str(number))
        now[0] += 1e-6
    assert len(bucket._level) <= limits._KEPT


def test_a_network_of_ipv6_is_one_address() -> None:
    assert limits.place("2001:db8::1") == limits.place("2001:db8::ffff") != limits.place("2001:db8:0:1::1")
    assert limits.place("192.0.2.1") != limits.place("192.0.2.2")
    assert limits.place("no address") == "no address"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Slow to refill, so that a test is over before."""
    rates = {"HEADSTART_SERVER_RATE_KNOWN": "0.01,30", "HEADSTART_SERVER_RATE_STRANGERS": "0.01,40"}
    with Server(tmp_path_factory.mktemp("narrow"), environment=rates) as running:
        yield running


def test_who_asks_too_often_waits_and_others_do_not(narrow: Server) -> None:
    tenant, other = narrow.tenant("often"), narrow.tenant("seldom")
    statuses = [tenant.admin.ask("GET", "/v1/vms").status for _ in range(31)]
    assert statuses[0] == 200 and statuses[-1] == 429
    answer = tenant.admin.ask("GET", "/v1/vms")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"
    assert other.admin.ask("GET", "/v1/vms").status == 200
    # Strangers have their own; whoever is known goes on.
    told = [Person(narrow.identity).ask("GET", "/v1/vms").status for _ in range(41)]
    assert told[0] == 401 and told[-1] == 429
    assert other.admin.ask("GET", "/v1/vms").status == 200
    assert Person(narrow.identity).ask("GET", "/v1/health/live").status == 200


def test_wrong_passwords_are_counted_over_processes(pair: tuple[Server, Server]) -> None:
    name = f"guessed{secrets.token_hex(4)}"
    wanted = {"name": name, "password": "a wrong password"}
    statuses = [
        Person(pair[number % 2].identity).ask("POST", "/v1/session", wanted).status
        for number in range(attempts.ALLOWED_PAIR + 2)
    ]
    assert statuses == [401] * attempts.ALLOWED_PAIR + [429] * 2
    answer = Person(pair[1].identity).ask("POST", "/v1/session", {**wanted, "name": f"{name}2"})
    assert answer.status == 401, "another name goes on"


def test_a_request_is_bounded(server: Server) -> None:
    tenant = server.tenant("bounded")
    large = {"name": "x", "more": "x" * (9 << 20)}
    assert tenant.admin.ask("POST", "/v1/repositories", large).status == 413
    chunked = {**tenant.admin.headers, "Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    answer = tenant.admin.client.request("POST", "/v1/repositories", b"2\r\n{}\r\n0\r\n\r\n", chunked)
    assert answer.status == 400
