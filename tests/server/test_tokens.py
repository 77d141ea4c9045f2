"""Tokens of machines: bound to a repository, ended at once, never shown again."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import create_engine, update

from headstart.server import tables
from tests.kit import routes, tenancy
from tests.kit.server import Person, Server, Tenant
from tests.kit.tenancy import Estate


@pytest.fixture(scope="module")
def estate(server: Server) -> Estate:
    return tenancy.settle(server, "tokens")


@pytest.fixture(scope="module")
def tenant(estate: Estate) -> Tenant:
    return estate.tenant


def test_one_for_a_repository_reaches_nothing_else(estate: Estate, tenant: Tenant) -> None:
    """Of every route but those that show its repository: also a new route begins closed."""
    other = tenant.repository("other")
    bound = estate.people["bound"]
    assert [each["name"] for each in bound.get("/v1/repositories")] == ["vault-tokens"]
    assert len(bound.get("/v1/snapshots")) == 1
    assert tenant.program("admin", "other").get("/v1/snapshots") == []
    assert bound.ask("GET", f"/v1/repositories/{other}/objects").status == 404
    assert bound.ask("PUT", f"/v1/repositories/{other}", {"immutable_days": 1}).status == 403
    allowed = {"/v1/repositories", "/v1/snapshots", "/v1/openapi.json", "/v1/session"}
    for operation in routes.operations(bound):
        if operation.method == "GET" and "{" not in operation.path and not operation.path.startswith("/v1/health"):
            status = bound.ask("GET", operation.path).status
            assert (status == 200) == (operation.path in allowed), (operation.path, status)
    wanted = {"kind": "api", "name": "more", "role": "admin"}
    assert bound.ask("POST", "/v1/tokens", wanted).status == 403
    made = {"name": "fresh", "password": "long enough for one", "role": "admin"}
    assert bound.ask("POST", "/v1/users", made).status == 403


def test_a_hosts_reaches_its_own_end_alone(estate: Estate) -> None:
    host = estate.people["host"]
    for operation in routes.operations(host):
        free = operation.path.startswith(("/v1/health", "/v1/host", "/v1/repositories/", "/v1/session"))
        if operation.method == "GET" and "{" not in operation.path and not free:
            assert host.ask("GET", operation.path).status == 403, operation.path


def test_one_that_is_revoked_or_over_is_nobodys_at_once(server: Server, tenant: Tenant) -> None:
    for how in ("revoked", "expired"):
        person = tenant.program("viewer")
        token = person.client.identity.token.split("_")[1]
        assert person.ask("GET", "/v1/vms").status == 200
        if how == "revoked":
            tenant.admin.delete(f"/v1/tokens/{token}")
        else:
            change = update(tables.tokens).where(tables.tokens.c.id == token).values(expires=1.0)
            with create_engine(tenancy.database(server)).begin() as connection:
                connection.execute(change)
        assert person.ask("GET", "/v1/vms").status == 401


def test_secrets_are_told_once_and_kept_as_hashes(server: Server, tenant: Tenant) -> None:
    person = tenant.program("viewer")
    secret = person.client.identity.token.split("_")[2]
    assert secret not in str(tenant.admin.get("/v1/tokens")) and "hash" not in str(tenant.admin.get("/v1/tokens"))
    assert secret not in str(tenant.admin.get("/v1/audit"))
    assert secret.encode() not in b"".join(each.read_bytes() for each in server.folder.glob("server.db*"))


def test_a_wrong_secret_of_a_right_token_is_nobodys(server: Server, tenant: Tenant) -> None:
    token = tenant.program("viewer").client.identity.token
    kind, number, secret = token.split("_")
    wrong = [f"{kind}_{number}_{secrets.token_hex(32)}", f"hsh_{number}_{secret}", f"hsj_{number}_{secret}", "x", ""]
    for text in wrong:
        answer = Person(server.identity).ask("GET", "/v1/vms", headers={"Authorization": f"Bearer {text}"})
        assert answer.status == 401, text


def test_a_viewer_and_an_operator_change_nothing(estate: Estate) -> None:
    """Of all that changes something, by whatever role may not: a new route is covered by itself."""
    free = ("/v1/session", "/v1/me/", "/v1/host/join")
    # What an operator is there for: the functions decide about each.
    orders = ("/orders", "/jobs", "/unlock", "/cancel")
    for operation in routes.operations(estate.admin):
        if not operation.is_changing or operation.path.startswith(free):
            continue
        path = operation.path
        for field in operation.fields:
            if field.place == "path":
                kind = {"name": "policy"}.get(field.name, field.name)
                path = path.replace(f"{{{field.name}}}", estate.names[kind][0])
        body = (
            None
            if operation.body is None
            else routes.filled(operation.body, {"name": "fresh", "key": "x", "zone": "UTC"})
        )
        body = {"kind": "gc"} if path.endswith("/jobs") else {"kind": "pause"} if path.endswith("/orders") else body
        for role in ("viewer", "operator"):
            if role == "operator" and (path.endswith(orders) or path.startswith("/v1/orders/")):
                continue
            answer = estate.people[role].ask(operation.method, path, body)
            assert answer.status == 403, (operation.name, role, answer.status, answer.detail, body)
