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
