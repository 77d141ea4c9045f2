"""The audit log: everything that changes something leaves an entry, and nothing takes one away."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from sqlalchemy import Engine, create_engine, exc, text

from headstart import repository
from headstart.repository import keyring
from headstart.server import app, site, tables
from headstart.server.database import Database
from headstart.server.settings import Settings
from headstart.store.server import ServerStore
from headstart.wire.https import Answer
from tests.kit import routes, tenancy
from tests.kit.postgres import Postgres
from tests.kit.server import PASSWORD, Person, Server
from tests.kit.stores import PASSWORD as KEY
from tests.kit.stores import QUICK
from tests.kit.tenancy import POLICY, Estate

#: Why these leave none.
WITHOUT = {
    "POST /v1/host/pulse": "what a host says each minute: it changes nothing but what is shown of it",
    "POST /v1/host/runs": "what a host has done: it stands among the runs",
    "POST /v1/notices/test": "sends a word to the tenant's own addresses, and changes nothing",
    "POST /v1/host/snapshots": "what a host has published: it stands in the catalogue",
    "POST /v1/host/figures": "what a host measured: it stands among the figures",
    "PUT /v1/repositories/{repository}/objects/{key}": "backups: objects are only added, and are their own record",
    "PUT /v1/repositories/{repository}/locks/{key}": "makes a lock longer, of each object, and never shorter",
}

STRUCTURE = b"opens no content"


@pytest.fixture(scope="module")
def estate(server: Server) -> Estate:
    return tenancy.settle(server, "audited")


class Doing:
    """For each changing operation a request that succeeds."""

    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.admin = estate.admin
        self.site = estate.server.site()

    def user(self, role: str = "viewer") -> str:
        return self.estate.server.user(self.estate.tenant, f"u{secrets.token_hex(6)}", role)

    def repository(self) -> str:
        return self.estate.tenant.repository(f"r{secrets.token_hex(4)}")

    def person(self) -> Person:
        name = f"p{secrets.token_hex(6)}"
        self.estate.server.user(self.estate.tenant, name, "viewer")
        return self.estate.server.person(name)

    def tenant(self) -> str:
        return str(self.site.post("/v1/tenants", {"name": f"t{secrets.token_hex(6)}"})["id"])

    def do(self, name: str) -> Answer:
        found: Answer = getattr(self, _method(name))()
        return found

    def post_session(self) -> Answer:
        wanted = {"name": f"t-{self.estate.mark}-admin", "password": PASSWORD}
        return Person(self.estate.server.identity).ask("POST", "/v1/session", wanted)

    def delete_session(self) -> Answer:
        return self.person().ask("DELETE", "/v1/session")

    def put_me_password(self) -> Answer:
        return self.person().ask("PUT", "/v1/me/password", {"password": PASSWORD, "new": PASSWORD + "!"})

    def post_me_totp(self) -> Answer:
        return self.person().ask("POST", "/v1/me/totp", {"password": PASSWORD})

    def post_me_totp_confirm(self) -> Answer:
        person = self.person()
        secret = person.post("/v1/me/totp", {"password": PASSWORD})["secret"]
        return person.ask("POST", "/v1/me/totp/confirm", {"code": pyotp.TOTP(secret).at(int(time.time()))})

    def post_me_totp_remove(self) -> Answer:
        return self.person().ask("POST", "/v1/me/totp/remove", {"password": PASSWORD})

    def post_me_account_remove(self) -> Answer:
        return self.person().ask("POST", "/v1/me/account/remove", {"password": PASSWORD})

    def delete_me_sessions_session(self) -> Answer:
        person = self.person()
        return person.ask("DELETE", f"/v1/me/sessions/{person.get('/v1/me/sessions')[0]['id']}")

    def post_tenants(self) -> Answer:
        return self.site.ask("POST", "/v1/tenants", {"name": f"t{secrets.token_hex(6)}"})

    def put_tenants_tenant_quota(self) -> Answer:
        return self.site.ask("PUT", f"/v1/tenants/{self.estate.tenant.id}/quota", {"quota_vms": 1000})

    def put_tenants_own_caution(self) -> Answer:
        return self.admin.ask("PUT", "/v1/tenants/own/caution", {"second_person": False, "delay_seconds": 0})

    def delete_tenants_tenant(self) -> Answer:
        return self.site.ask("DELETE", f"/v1/tenants/{self.tenant()}")

    def post_users(self) -> Answer:
        wanted = {"name": f"u{secrets.token_hex(6)}", "password": PASSWORD, "role": "viewer"}
        return self.admin.ask("POST", "/v1/users", wanted)

    def delete_users_user(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/users/{self.user()}")

    def put_users_user_role(self) -> Answer:
        return self.admin.ask("PUT", f"/v1/users/{self.user()}/role", {"role": "operator"})

    def put_users_user_disabled(self) -> Answer:
        return self.admin.ask("PUT", f"/v1/users/{self.user()}/disabled", {"disabled": True})

    def post_users_user_reset(self) -> Answer:
        return self.admin.ask("POST", f"/v1/users/{self.user()}/reset", {})

    def delete_users_user_sessions(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/users/{self.user()}/sessions")

    def post_tokens(self) -> Answer:
        return self.admin.ask("POST", "/v1/tokens", {"kind": "api", "name": "fresh", "role": "viewer"})

    def delete_tokens_token(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/tokens/{self.estate.names['token'][0]}")

    def post_approvals_approval_approve(self) -> Answer:
        return self.admin.ask("POST", f"/v1/approvals/{self._waiting(second=True)}/approve")

    def post_approvals_approval_reject(self) -> Answer:
        return self.admin.ask("POST", f"/v1/approvals/{self._waiting(second=False)}/reject")

    def _waiting(self, *, second: bool) -> str:
        known = {"tenant": self.estate.tenant.id, "state": "waiting", "act": "vm.remove", "due": 1e10}
        more = {"second_person": second, "person": secrets.token_hex(16), "arguments": {"vm": "x"}}
        return tenancy.add_row(self.estate.server, tables.approvals, **known, **more)

    def post_repositories(self) -> Answer:
        return self.admin.ask("POST", "/v1/repositories", {"name": f"r{secrets.token_hex(4)}"})

    def put_repositories_repository(self) -> Answer:
        return self.admin.ask("PUT", f"/v1/repositories/{self.repository()}", {"immutable_days": 3})

    def delete_repositories_repository(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/repositories/{self.repository()}")

    def delete_repositories_repository_snapshots_snapshot(self) -> Answer:
        names = self.estate.names
        tenancy.give_key(self.estate)
        return self.admin.ask("DELETE", f"/v1/repositories/{names['repository'][0]}/snapshots/{names['snapshot'][0]}")

    def delete_repositories_repository_objects_key(self) -> Answer:
        names = self.estate.names
        return self.admin.ask("DELETE", f"/v1/repositories/{names['repository'][0]}/objects/{names['key'][0]}")

    def post_host_join(self) -> Answer:
        token = self.estate.tenant.join_token(self.estate.names["repository"][0])
        wanted = {"token": token, "name": f"h{secrets.token_hex(4)}", "installation": "x", "version": "1"}
        return Person(self.estate.server.identity).ask("POST", "/v1/host/join", wanted)

    def delete_hosts_host(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/hosts/{self.post_host_join().json()['host']}")

    def delete_vms_vm(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/vms/{self.estate.names['vm'][0]}")

    def _host(self) -> Person:
        """Another one, whom nobody needs any longer."""
        kept = self.estate.tenant.host(f"h{secrets.token_hex(4)}", self.estate.names["repository"][0])
        return Person(kept.identity)

    def post_host_token(self) -> Answer:
        return self._host().ask("POST", "/v1/host/token")

    def post_host_leave(self) -> Answer:
        return self._host().ask("POST", "/v1/host/leave")

    def _sealed(self) -> str:
        """A repository that a client has made, and whose structure can be opened."""
        name = self.repository()
        place = ServerStore(self.estate.tenant.program("admin").client, name)
        with repository.create(place, KEY, cost=QUICK) as repo:
            keyring.add(repo, STRUCTURE, time.time(), structure_alone=True, cost=QUICK)
        return name

    def put_repositories_repository_structure(self) -> Answer:
        wanted = {"password": STRUCTURE.decode()}
        return self.admin.ask("PUT", f"/v1/repositories/{self._sealed()}/structure", wanted)

    def delete_repositories_repository_structure(self) -> Answer:
        return self.admin.ask("DELETE", f"/v1/repositories/{self.repository()}/structure")

    def post_repositories_repository_unlock(self) -> Answer:
        return self.admin.ask("POST", f"/v1/repositories/{self._sealed()}/unlock", {"password": KEY.decode()})

    def post_repositories_repository_jobs(self) -> Answer:
        return self.admin.ask("POST", f"/v1/repositories/{self.repository()}/jobs", {"kind": "recount"})

    def post_jobs_job_cancel(self) -> Answer:
        known = {"tenant": self.estate.tenant.id, "repository": self.estate.names["repository"][0], "kind": "recount"}
        job = tenancy.add_row(self.estate.server, tables.jobs, **known, state="waiting", due=1e10)
        return self.admin.ask("POST", f"/v1/jobs/{job}/cancel")

    def post_vms_vm_orders(self) -> Answer:
        name = f"vm{secrets.token_hex(4)}"
        self.estate.people["host"].post("/v1/host/pulse", {"version": "1", "vms": {name: {"state": "idle"}}})
        vm = next(each["id"] for each in self.admin.get("/v1/vms") if each["name"] == name)
        return self.admin.ask("POST", f"/v1/vms/{vm}/orders", {"kind": "pause"})

    def post_hosts_host_orders(self) -> Answer:
        host, names = self.estate.people["host"], self.estate.names
        host.post("/v1/host/pulse", {"version": "1", "state": {"rehearsals": True}, "vms": {}})
        wanted = {"kind": "rehearse", "snapshot": names["snapshot"][0]}
        return self.admin.ask("POST", f"/v1/hosts/{names['host'][0]}/orders", wanted)

    def delete_orders_order(self) -> Answer:
        order = self.post_vms_vm_orders().json()["id"]
        return self.admin.ask("DELETE", f"/v1/orders/{order}")

    def put_notices(self) -> Answer:
        return self.admin.ask("PUT", "/v1/notices", {"urls": [], "kinds": ["backup.failed"]})

    def put_policies_name(self) -> Answer:
        return self.admin.ask("PUT", "/v1/policies/fresh", {"text": POLICY})

    def delete_policies_name(self) -> Answer:
        self.admin.put("/v1/policies/gone", {"text": POLICY})
        return self.admin.ask("DELETE", "/v1/policies/gone")

    def put_assignments(self) -> Answer:
        self.admin.put("/v1/policies/fresh", {"text": POLICY})
        return self.admin.ask("PUT", "/v1/assignments?pattern=x*", {"policy": "fresh"})

    def delete_assignments(self) -> Answer:
        return self.admin.ask("DELETE", "/v1/assignments?pattern=x*")


def _method(name: str) -> str:
    """``PUT /v1/users/{user}/role`` -> ``put_users_user_role``"""
    method, path = name.split()
    words = path.removeprefix("/v1/").replace("{", "").replace("}", "").replace("-", "_").split("/")
    return "_".join([method.lower(), *words])


def test_every_changing_route_leaves_an_entry(server: Server, estate: Estate) -> None:
    doing, missing, silent = Doing(estate), [], []
    for operation in routes.operations(estate.admin):
        if not operation.is_changing or operation.name in WITHOUT:
            continue
        if not hasattr(doing, _method(operation.name)):
            missing.append(operation.name)
            continue
        answer = doing.do(operation.name)
        assert answer.status < 300, (operation.name, answer.status, answer.detail)
        its = tables.audit.c
        if not tenancy.rows(server, tables.audit, its.request == answer.headers["x-request-id"]):
            silent.append(operation.name)
    assert not missing, "Say in Doing how each of them is asked so that it succeeds."
    assert not silent


def test_the_document_names_every_changing_route(tmp_path: Path) -> None:
    """A route that it does not name would be in no test. Pages call the same functions, with a form."""
    opened = site.open_site(Settings(tmp_path, f"sqlite:///{tmp_path / 'server.db'}", str(tmp_path / "objects")))
    made = app.make(opened)
    named = {(method.upper(), path) for path, methods in made.openapi()["paths"].items() for method in methods}
    hidden = [
        (method, path)
        for path, methods in _routes(made.routes)
        for method in methods
        if method in routes.CHANGING and path.startswith("/v1") and (method, path.replace(":path", "")) not in named
    ]
    assert not hidden


def _routes(found: list[Any]) -> Iterator[tuple[str, set[str]]]:
    for each in found:
        if getattr(each, "methods", None):
            yield each.path, each.methods
        yield from _routes(list(getattr(each, "routes", ())))


def test_what_was_refused_leaves_none(server: Server, estate: Estate) -> None:
    answer = estate.people["viewer"].ask("POST", "/v1/repositories", {"name": "refused"})
    assert answer.status == 403
    assert tenancy.rows(server, tables.audit, tables.audit.c.request == answer.headers["x-request-id"]) == []


def test_it_is_exported_in_pages_of_lines(server: Server, estate: Estate) -> None:
    found, after = [], 0
    while True:
        answer = estate.admin.ask("GET", f"/v1/audit/export?after={after}&limit=7")
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        page = [json.loads(line) for line in answer.data.splitlines()]
        found += page
        if len(page) < 7:
            break
        after = page[-1]["id"]
    numbers = [each["id"] for each in found]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    assert {each["tenant"] for each in found} == {estate.tenant.id}
    assert len(found) == len(tenancy.rows(server, tables.audit, tables.audit.c.tenant == estate.tenant.id))
    assert {each["tenant"] for each in server.site().get("/v1/audit")} == {None}
    for who in ("viewer", "operator", "host", "bound"):
        assert estate.people[who].ask("GET", "/v1/audit/export").status == 403


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'server.db'}"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_database().replace("postgresql://", "postgresql+psycopg://")
    Database(url).migrate()
    return create_engine(url)


def test_the_database_refuses_to_change_an_entry(engine: Engine) -> None:
    values = {"moment": 1.0, "actor": "x", "address": "", "request": "", "act": "x", "object": "", "facts": {}}
    with engine.begin() as connection:
        connection.execute(tables.audit.insert().values(values))
    statements = ["UPDATE audit SET actor = 'y'", "DELETE FROM audit", "DELETE FROM audit WHERE id = 1"]
    if engine.dialect.name == "postgresql":
        statements.append("TRUNCATE audit")
    for statement in statements:
        with pytest.raises(exc.DBAPIError, match="only added to"), engine.begin() as connection:
            connection.execute(text(statement))
    with engine.connect() as connection:
        assert [row.actor for row in connection.execute(tables.audit.select())] == ["x"]
