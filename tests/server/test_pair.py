"""Two server processes on PostgreSQL: what one is told, the other knows."""

from __future__ import annotations

from tests.kit.server import PASSWORD, Person, Server


def test_what_one_is_told_the_other_knows(pair: tuple[Server, Server]) -> None:
    one, two = pair
    tenant = one.tenant("both")
    tenant.repository()
    there = Person(two.identity, "both-admin", PASSWORD)
    assert [each["name"] for each in there.get("/v1/repositories")] == ["main"]
    # Also the session is nobody's own.
    answer = Person(two.identity).client.request("GET", "/v1/repositories", headers=tenant.admin.headers)
    assert answer.status == 200


def test_what_postgresql_has_no_text_for_is_the_askers_mistake(pair: tuple[Server, Server]) -> None:
    tenant = pair[0].tenant("zeroes")
    for path in ("/v1/vms/%00", "/v1/repositories/%00", "/v1/snapshots?vm=%00"):
        assert tenant.admin.ask("GET", path).status == 400, path
