"""People: second factors, passwords, sessions, roles; and what of it a stranger can find out."""

from __future__ import annotations

import secrets
import time

import pyotp
import pytest

from headstart.wire.https import Answer
from tests.kit import tenancy
from tests.kit.server import PASSWORD, SITE, SITE_PASSWORD, Person, Server, Tenant

NEW = "another password of theirs"


@pytest.fixture
def tenant(server: Server) -> Tenant:
    return server.tenant(f"people{secrets.token_hex(4)}")


def _log_in(server: Server, name: str, password: str = PASSWORD, code: str = "") -> Answer:
    return Person(server.identity).ask("POST", "/v1/session", {"name": name, "password": password, "code": code})


def _set_up(person: Person) -> pyotp.TOTP:
    """Its last code is that of the step before the present one, so that the present one can be used yet."""
    secret = person.post("/v1/me/totp", {"password": PASSWORD})["secret"]
    codes = pyotp.TOTP(secret)
    person.post("/v1/me/totp/confirm", {"code": codes.at(int(time.time()) - 30)})
    return codes


def test_a_second_factor_is_needed_once_a_code_was_confirmed(server: Server, tenant: Tenant) -> None:
    name, admin = f"{tenant.name}-admin", tenant.admin
    told = admin.post("/v1/me/totp", {"password": PASSWORD})
    assert told["uri"].startswith("otpauth://totp/") and told["secret"] in told["uri"]
    assert _log_in(server, name).status == 201, "not confirmed yet"
    assert admin.ask("POST", "/v1/me/totp/confirm", {"code": "000000"}).status == 400
    assert admin.ask("POST", "/v1/me/totp/confirm", {"code": "\u0663" * 6}).status == 400, "digits of another script"
    codes = _set_up(admin)
    assert [_log_in(server, name, code=code).status for code in ("", "000000", "\u00e900000")] == [401] * 3
    code = codes.now()
    assert _log_in(server, name, code=code).status == 201
    assert _log_in(server, name, code=code).status == 401, "each code serves once"
    assert admin.ask("POST", "/v1/me/totp/remove", {"password": "not the password"}).status == 403
    admin.post("/v1/me/totp/remove", {"password": PASSWORD})
    assert _log_in(server, name).status == 201


def test_another_admin_resets_a_lost_second_factor(server: Server, tenant: Tenant) -> None:
    user = tenancy.create_user(tenant.admin, f"{tenant.name}-lost", "operator")
    person = Person(server.identity, f"{tenant.name}-lost", PASSWORD)
    _set_up(person)
    assert person.ask("POST", f"/v1/users/{user}/reset", {}).status == 403
    tenant.admin.post(f"/v1/users/{user}/reset", {"password": NEW})
    assert person.ask("GET", "/v1/session").status == 401, "sessions end"
    assert _log_in(server, f"{tenant.name}-lost", NEW).status == 201


def test_a_new_password_ends_other_sessions(server: Server, tenant: Tenant) -> None:
    name, admin = f"{tenant.name}-admin", tenant.admin
    other = Person(server.identity, name, PASSWORD)
    assert admin.ask("PUT", "/v1/me/password", {"password": "not the password", "new": NEW}).status == 403
    assert admin.ask("PUT", "/v1/me/password", {"password": PASSWORD, "new": "short"}).status == 422
    admin.put("/v1/me/password", {"password": PASSWORD, "new": NEW})
    assert admin.ask("GET", "/v1/session").status == 200
    assert other.ask("GET", "/v1/session").status == 401
    assert [_log_in(server, name, each).status for each in (PASSWORD, NEW)] == [401, 201]


def test_sessions_are_listed_and_ended(server: Server, tenant: Tenant) -> None:
    other = Person(server.identity, f"{tenant.name}-admin", PASSWORD)
    listed = tenant.admin.get("/v1/me/sessions")
    assert [each["this"] for each in listed].count(True) == 1 and len(listed) == 2
    for person in (tenant.admin, other):
        cookie = person.headers["Cookie"].partition("=")[2]
        assert cookie not in str(listed)
    ended = next(each["id"] for each in listed if not each["this"])
    tenant.admin.delete(f"/v1/me/sessions/{ended}")
    assert other.ask("GET", "/v1/session").status == 401
    assert tenant.admin.ask("DELETE", f"/v1/me/sessions/{ended}").status == 404
    assert tenant.program("admin").ask("GET", "/v1/me/sessions").status == 403


def test_who_is_disabled_is_out_at_once_and_in_again_after(server: Server, tenant: Tenant) -> None:
    name = f"{tenant.name}-out"
    user = tenancy.create_user(tenant.admin, name, "viewer")
    person = Person(server.identity, name, PASSWORD)
    tenant.admin.put(f"/v1/users/{user}/disabled", {"disabled": True})
    assert person.ask("GET", "/v1/vms").status == 401
    assert _log_in(server, name).data == _log_in(server, "nobody-at-all").data
    tenant.admin.put(f"/v1/users/{user}/disabled", {"disabled": False})
    assert _log_in(server, name).status == 201


def test_who_is_at_the_machine_lets_a_locked_out_admin_in_again(server: Server, tenant: Tenant) -> None:
    """The phone with the second factor is lost, the password forgotten, and there is no other admin."""
    name = f"{tenant.name}-admin"
    _set_up(tenant.admin)
    assert _log_in(server, name).status == 401
    again = server.at_the_machine("admin", name, password=NEW)
    assert again.returncode == 0, again.stderr
    assert tenant.admin.ask("GET", "/v1/session").status == 401  # whoever has the phone is out
    assert _log_in(server, name).status == 401
    answer = _log_in(server, name, NEW)
    assert answer.status == 201, answer.detail
    back = Person(server.identity, name, NEW)
    assert back.get("/v1/session")["role"] == "admin"
    entry = next(each for each in back.get("/v1/audit") if each["act"] == "user.reset")
    assert (entry["actor"], entry["facts"]["name"]) == ("console", name)
    tenancy.create_user(back, f"{tenant.name}-viewer", "viewer")
    refused = server.at_the_machine("admin", f"{tenant.name}-viewer", password=NEW)
    assert refused.returncode != 0 and "no admin" in refused.stdout + refused.stderr
    assert _log_in(server, f"{tenant.name}-viewer").status == 201


def test_the_last_admin_stays(server: Server, tenant: Tenant) -> None:
    admin = tenant.admin
    me = admin.get("/v1/session")["id"]
    assert admin.ask("PUT", f"/v1/users/{me}/role", {"role": "viewer"}).status == 400
    assert admin.ask("PUT", f"/v1/users/{me}/disabled", {"disabled": True}).status == 400
    assert admin.ask("DELETE", f"/v1/users/{me}").status == 400
    other = tenancy.create_user(admin, f"{tenant.name}-second", "operator")
    admin.put(f"/v1/users/{other}/role", {"role": "admin"})
    assert admin.ask("PUT", f"/v1/users/{me}/role", {"role": "site"}).status == 400
    admin.put(f"/v1/users/{me}/role", {"role": "viewer"})
    assert admin.ask("PUT", f"/v1/users/{other}/role", {"role": "viewer"}).status == 403, "no admin any longer"


def test_the_site_makes_the_first_admin_of_a_tenant_and_no_other(server: Server) -> None:
    site = Person(server.identity, SITE, SITE_PASSWORD)
    name = f"made{secrets.token_hex(4)}"
    tenant = site.post("/v1/tenants", {"name": name})["id"]
    wanted = {"name": f"{name}-admin", "password": PASSWORD, "role": "admin", "tenant": tenant}
    assert site.ask("POST", "/v1/users", {**wanted, "tenant": secrets.token_hex(16)}).status == 404
    site.post("/v1/users", wanted)
    admin = Person(server.identity, f"{name}-admin", PASSWORD)
    told = admin.get("/v1/session")
    assert (told["tenant"], told["role"]) == (tenant, "admin")
    assert site.ask("POST", "/v1/users", {**wanted, "name": f"{name}-spy"}).status == 403
    assert "user.create" in [each["act"] for each in admin.get("/v1/audit")], "the tenant sees who was made"


def test_the_cookie_is_of_this_server_alone(server: Server, tenant: Tenant) -> None:
    answer = _log_in(server, f"{tenant.name}-admin")
    name, _, rest = answer.headers["set-cookie"].partition("=")
    told = {each.strip().lower() for each in rest.split(";")[1:]}
    assert name == "__Host-headstart"
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= told and not any("domain" in each for each in told)
    before = Person(server.identity, f"{tenant.name}-admin", PASSWORD)
    chosen = "f" * 64
    kept = {"name": f"{tenant.name}-admin", "password": PASSWORD, "code": ""}
    for cookie in (before.headers["Cookie"], f"{name}={chosen}"):
        again = Person(server.identity).ask("POST", "/v1/session", kept, {"Cookie": cookie})
        assert again.headers["set-cookie"].split(";")[0] not in (cookie, before.headers["Cookie"])
    assert before.ask("GET", "/v1/session").status == 401, "the session that the browser had ends"
    assert Person(server.identity).ask("GET", "/v1/session", headers={"Cookie": f"{name}={chosen}"}).status == 401


def test_a_page_of_somebody_elses_changes_nothing(server: Server, tenant: Tenant) -> None:
    cookie = {"Cookie": tenant.admin.headers["Cookie"]}
    stranger = Person(server.identity)
    wanted = {"name": "forged"}
    assert stranger.ask("POST", "/v1/repositories", wanted, cookie).status == 403
    assert stranger.ask("POST", "/v1/repositories", wanted, {**cookie, "X-Csrf-Token": "0" * 64}).status == 403
    assert stranger.ask("POST", "/v1/repositories", wanted, {**cookie, "X-Csrf-Token": "\xe4"}).status == 403
    assert tenant.admin.get("/v1/repositories") == []


def test_answers_have_headers_that_keep_browsers_tame(server: Server, tenant: Tenant) -> None:
    for answer in (tenant.admin.ask("GET", "/v1/vms"), Person(server.identity).ask("GET", "/v1/vms")):
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers and "strict-transport-security" not in answer.headers


def test_nobodys_name_takes_as_long_as_a_wrong_password(server: Server, tenant: Tenant) -> None:
    """argon2 takes tens of milliseconds: an answer without it would be told apart at once."""
    name = f"{tenant.name}-admin"
    known: list[float] = []
    unknown: list[float] = []
    for number in range(5):
        for place, asked in ((known, name), (unknown, f"{name}-{number}")):
            begun = time.monotonic()
            answer = _log_in(server, asked, "a wrong password")
            place.append(time.monotonic() - begun)
            assert answer.status == 401
    # The quickest of each: what else a machine does makes an answer later, and never earlier.
    assert 0.4 < min(unknown) / min(known) < 2.5
