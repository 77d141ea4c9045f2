"""Logging in through a provider of OpenID Connect: with the real server, a real provider, and a browser at the end."""

from __future__ import annotations

import functools
import html
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pyotp
import pytest
import urllib3
from playwright.sync_api import ConsoleMessage, Page, expect
from sqlalchemy import create_engine, update

from headstart import errors
from headstart.cli import server as cli
from headstart.server import attempts, crossing, tables
from headstart.server.sealing import Sealer
from headstart.wire.https import Identity
from tests.kit import browser, tenancy
from tests.kit.openid import OpenId
from tests.kit.server import PASSWORD, Person, Server, Tenant

BACK = "/login/oidc/back"
COOKIE, SESSION = "__Host-headstart-oidc", "__Host-headstart"


@dataclass(frozen=True, slots=True)
class Member:
    """Of a tenant, without a password: somebody who came with an invitation."""

    id: str
    name: str
    subject: str


@dataclass(frozen=True, slots=True)
class Place:
    """``home``: a tenant that the tests share. Each password that is looked at takes a while."""

    server: Server
    example: OpenId
    home: Tenant

    def member(self) -> Member:
        subject = self.account(f"{secrets.token_hex(4)}@example.org")
        name, user, way = invite(self.home, self.example.people[subject]["email"])
        assert self.log_in(subject, way)[1].status == 200
        return Member(user, name, subject)

    def browser(self) -> Browser:
        return Browser(self.server.identity)

    def tenant(self) -> Tenant:
        return self.server.tenant(f"o{secrets.token_hex(4)}")

    def account(self, email: str = "", verified: bool = True) -> str:
        """At the provider."""
        subject = f"s{secrets.token_hex(4)}"
        self.example.people[subject] = {"email": email, "email_verified": verified} if email else {}
        return subject

    def link(self, person: Person, subject: str, password: str = PASSWORD) -> Answer:
        """As the page of settings does it. Somebody who has logged in, in a browser of his."""
        browser = self.browser()
        browser.cookies[SESSION] = person.headers["Cookie"].partition("=")[2]
        told = {"password": password, "csrf": person.headers["X-Csrf-Token"]}
        sent = browser.ask("POST", "/settings/oidc", told)
        if sent.status != 200:
            return sent
        # Back from another site's page, the browser leaves that one out.
        del browser.cookies[SESSION]
        return browser.come(self.example.let_in(sent.onward, subject))

    def linked(self, person: Person) -> str:
        subject = self.account()
        assert self.link(person, subject).onward == "/settings?done=linked"
        return subject

    def log_in(self, subject: str, path: str = "/login/oidc") -> tuple[Browser, Answer]:
        browser = self.browser()
        return browser, browser.come(self.example.let_in(browser.ask("GET", path).onward, subject))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str
    #: As they were set, by name.
    set: Mapping[str, str]

    @property
    def onward(self) -> str:
        """Where a browser goes to from it."""
        found = re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', self.text)
        return html.unescape(found[1]) if found else self.headers["location"]

    @property
    def said(self) -> str:
        found = re.search(r'role="alert"[^>]*>.*?<span>([^<]*)</span>', self.text, re.S)
        assert found, self.text
        return html.unescape(found[1])


@functools.cache
def _pool(fingerprint: str) -> urllib3.PoolManager:
    return urllib3.PoolManager(cert_reqs="CERT_NONE", assert_hostname=False, assert_fingerprint=fingerprint)


@dataclass(slots=True)
class Browser:
    """What keeps cookies."""

    server: Identity
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        told = dict(headers or {})
        told["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            told["Content-Type"] = "application/x-www-form-urlencoded"
        body = None if form is None else urlencode(form)
        url = self.server.url + path
        answer = _pool(self.server.fingerprint).request(
            method, url, body=body, headers=told, redirect=False, timeout=30
        )
        found = {each.partition("=")[0]: each for each in answer.headers.getlist("set-cookie")}
        for name, each in found.items():
            value = each.partition("=")[2].partition(";")[0].strip('"')
            self.cookies[name] = value
            if not value:
                del self.cookies[name]
        return Answer(
            answer.status, {name.lower(): answer.headers[name] for name in answer.headers}, answer.data.decode(), found
        )

    def come(self, told: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", f"{BACK}?{urlencode(told)}", headers=headers)

    @property
    def person(self) -> str | None:
        """Who is logged in."""
        answer = self.ask("GET", "/v1/session")
        found = re.search(r'"name":"([^"]*)"', answer.text)
        return found[1] if answer.status == 200 and found else None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"https://127.0.0.1:{port}"
    with (
        OpenId(backs=[f"{url}{BACK}"]) as example,
        Server(tmp_path_factory.mktemp("oidc"), port=port, environment=example.environment(url)) as server,
    ):
        yield Place(server, example, server.tenant("home"))


@pytest.fixture
def place(running: Place) -> Iterator[Place]:
    running.example.be_honest()
    yield running
    running.example.be_honest()


def audit(person: Person, act: str) -> list[dict[str, Any]]:
    return [each for each in person.get("/v1/audit") if each["act"] == act]


def test_an_account_that_was_linked_once_lets_in(place: Place) -> None:
    tenant = place.tenant()
    subject = place.account()
    wrong = place.link(tenant.admin, subject, "not the password")
    assert wrong.status == 403 and audit(tenant.admin, "user.link") == []
    assert place.link(tenant.admin, subject).onward == "/settings?done=linked"
    browser, answer = place.log_in(subject, "/login/oidc?next=/hosts")
    assert answer.onward == "/hosts" and browser.person == f"{tenant.name}-admin"
    flags = {each.strip().lower() for each in answer.set[SESSION].split(";")[1:]}
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= flags
    assert [each["facts"]["issuer"] for each in audit(tenant.admin, "user.link")] == [place.example.issuer]
    assert audit(tenant.admin, "session.begin")[0]["facts"] == {"by": place.example.issuer}
    assert [each["linked"] for each in tenant.admin.get("/v1/users")] == [True]
    assert tenant.admin.get("/v1/users")[0]["seen"] is not None
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', browser.ask("GET", "/").text)
    assert csrf is not None
    out = browser.ask("POST", "/logout", {"csrf": csrf[1]})
    assert out.status == 303 and browser.person is None


def test_a_second_factor_is_the_providers_part(place: Place) -> None:
    tenant = place.tenant()
    subject = place.linked(tenant.admin)
    secret = tenant.admin.post("/v1/me/totp", {"password": PASSWORD})["secret"]
    tenant.admin.post("/v1/me/totp/confirm", {"code": pyotp.TOTP(secret).now()})
    assert place.log_in(subject)[0].person == f"{tenant.name}-admin"


def test_the_way_there_is_bound_to_the_browser(place: Place) -> None:
    subject = place.member().subject
    browser, other = place.browser(), place.browser()
    begun = browser.ask("GET", "/login/oidc")
    assert begun.status == 303 and "form-action 'self'" in begun.headers["content-security-policy"]
    flags = {each.strip().lower() for each in begun.set[COOKIE].split(";")[1:]}
    assert {"httponly", "secure", "samesite=lax", "path=/", "max-age=600"} <= flags
    told = place.example.let_in(begun.onward, subject)
    other.ask("GET", "/login/oidc")
    tokens = place.example.asked.count("/token")
    sealed = browser.cookies[COOKIE]
    for stranger, answer in (
        (place.browser(), told),
        (other, told),
        (Browser(browser.server, {COOKIE: sealed}), {**told, "state": "x"}),
        (Browser(browser.server, {COOKIE: sealed}), {"code": told["code"]}),
        (Browser(browser.server, {COOKIE: sealed[:-8] + "AAAAAAA="}), told),
        (Browser(browser.server, {COOKIE: "\u00e4"}), told),
    ):
        refused = stranger.come(answer)
        assert refused.status == 401 and "Begin again" in refused.said
        assert SESSION not in refused.set and stranger.person is None
    assert place.example.asked.count("/token") == tokens, "the provider is not even asked"
    good = browser.come(told)
    assert browser.person is not None and COOKIE not in browser.cookies and good.status == 200
    again = Browser(browser.server, {COOKIE: sealed})
    assert again.come(told).status == 401 and again.person is None, "a code serves once"


def test_a_sealed_way_ends_and_is_of_this_server_alone() -> None:
    here, elsewhere = Sealer(b"h" * 32), Sealer(b"e" * 32)
    asked = crossing.begin(1000.0, "/hosts", "session", "invitation")
    text = crossing.sealed(here, asked)
    assert crossing.opened(here, text, 1599.0) == asked
    assert crossing.opened(here, text, 1601.0) is None and crossing.opened(here, text, 900.0) is None
    for wrong in (crossing.sealed(elsewhere, asked), "", "x", text[:-4], "\u00e4"):
        assert crossing.opened(here, wrong, 1000.0) is None
    assert len(crossing.sealed(here, crossing.begin(1.0, "/" + "x" * 1999, "", "f" * 64))) < 3900, "a cookie takes 4096"


def test_who_is_not_to_be_let_in_is_told_the_same_for_every_reason(place: Place) -> None:
    admin, disabled, removed = place.home.admin, place.member(), place.member()
    admin.put(f"/v1/users/{disabled.id}/disabled", {"disabled": True})
    admin.delete(f"/v1/users/{removed.id}")
    strangers = (place.account(), place.account(f"{disabled.name}@example.org"))
    answers = [place.log_in(each) for each in (removed.subject, *strangers, disabled.subject)]
    answers.append(place.log_in(place.account(), f"/login/oidc?invitation={'0' * 64}"))
    said = {(answer.status, answer.said) for _, answer in answers}
    assert len(said) == 1 and said.pop()[0] == 401
    assert all(browser.person is None for browser, _ in answers)
    told = {"by": place.example.issuer, "account": disabled.subject}
    assert audit(admin, "session.refuse")[0]["facts"] == told
    noted = [each["facts"] for each in audit(place.server.site(), "session.refuse")]
    assert {"by": place.example.issuer, "account": removed.subject} in noted and told not in noted


def invite(tenant: Tenant, email: str, role: str = "operator") -> tuple[str, str, str]:
    """Name, id, and where the button of the link's page leads."""
    name = f"i{secrets.token_hex(4)}"
    told = tenant.admin.post("/v1/users", {"name": name, "role": role, "email": email})
    parts = urlsplit(told["invitation"])
    assert parts.path == "/login"
    return name, told["id"], f"/login/oidc?{parts.query}"


def test_an_invitation_lets_in_who_has_the_e_mail_once(place: Place) -> None:
    tenant = place.home
    name, user, way = invite(tenant, "New@Example.org")
    listed = {each["id"]: (each["password"], each["linked"]) for each in tenant.admin.get("/v1/users")}
    assert listed[user] == (False, False)
    shown = place.browser().ask("GET", way.replace("/login/oidc?", "/login?")).text
    assert f'href="{way}"' in shown and "You were invited" in shown
    for subject in (
        place.account(),
        place.account("other@example.org"),
        place.account("new@example.org", verified=False),
    ):
        browser, answer = place.log_in(subject, way)
        assert answer.status == 401 and browser.person is None
    assert place.log_in(place.account("new@example.org"))[1].status == 401, "an e-mail alone is nothing"
    subject = place.account("new@example.org")
    browser, answer = place.log_in(subject, way)
    assert browser.person == name and answer.onward == "/"
    assert place.log_in(place.account("new@example.org"), way)[1].status == 401
    assert place.log_in(subject)[0].person == name
    assert audit(tenant.admin, "user.link")[0]["object"] == user
    assert audit(tenant.admin, "user.invite")[0]["facts"]["email"] == "New@Example.org"
    for word in ("", "nobody", "None"):
        wanted = {"name": name, "password": word}
        assert Person(place.server.identity).ask("POST", "/v1/session", wanted).status == 401
    session = {"Cookie": f"{SESSION}={browser.cookies[SESSION]}"}
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', browser.ask("GET", "/").text)
    assert csrf is not None
    kept = Person(place.server.identity)
    kept.headers = {**session, "X-Csrf-Token": csrf[1]}
    for path in ("/v1/me/account/remove", "/v1/me/totp"):
        assert kept.ask("POST", path, {"password": "nobody"}).status == 403


def test_an_invitation_ends_and_is_for_ones_own(place: Place) -> None:
    tenant, other = place.home, place.tenant()
    _, user, way = invite(tenant, "\u212aate@example.org")
    assert place.log_in(place.account("kate@example.org"), way)[1].status == 401, "it looks alike"
    _, user, way = invite(tenant, "late@example.org")
    with create_engine(tenancy.database(place.server)).begin() as connection:
        connection.execute(update(tables.invitations).where(tables.invitations.c.user == user).values(expires=1.0))
    assert place.log_in(place.account("late@example.org"), way)[1].status == 401
    wanted = {"name": "spy", "role": "admin", "email": "spy@example.org"}
    site = place.server.site()
    empty = site.post("/v1/tenants", {"name": f"o{secrets.token_hex(4)}"})["id"]
    assert site.ask("POST", "/v1/users", {**wanted, "tenant": empty}).status == 400
    assert other.admin.ask("POST", "/v1/users", {**wanted, "tenant": tenant.id}).status == 404
    for bad in ({"email": "nobody"}, {"email": "a@"}, {"email": "a@b.c", "password": PASSWORD}, {"email": None}):
        assert tenant.admin.ask("POST", "/v1/users", {**wanted, **bad}).status == 400


def test_who_was_invited_and_has_not_come_is_no_admin_that_is_left(place: Place) -> None:
    tenant = place.tenant()
    me = tenant.admin.get("/v1/session")["id"]
    _, _, way = invite(tenant, "boss@example.org", "admin")
    assert tenant.admin.ask("PUT", f"/v1/users/{me}/role", {"role": "viewer"}).status == 400
    assert tenant.admin.ask("PUT", "/v1/tenants/own/caution", {"second_person": True, "delay_seconds": 0}).status == 400
    assert place.log_in(place.account("boss@example.org"), way)[1].status == 200
    tenant.admin.put(f"/v1/users/{me}/role", {"role": "viewer"})


def test_an_account_is_one_persons(place: Place) -> None:
    ours, theirs = place.home, place.tenant()
    subject = place.linked(ours.admin)
    assert place.link(theirs.admin, subject).status == 409
    assert place.log_in(subject)[0].person == f"{ours.name}-admin"
    _, _, way = invite(theirs, "ann@example.org")
    place.example.people[subject] = {"email": "ann@example.org", "email_verified": True}
    assert place.log_in(subject, way)[1].status == 401, "an invitation moves nobody"
    assert place.link(ours.admin, subject).onward == "/settings?done=linked", "once more is the same"
    second = place.linked(ours.admin)
    assert place.log_in(second)[0].person == f"{ours.name}-admin"
    assert place.log_in(subject)[1].status == 401, "another account takes the place of the first"


def test_unlinked_or_reset_it_lets_in_no_longer(place: Place) -> None:
    tenant = place.home
    subject = place.linked(tenant.admin)
    browser, _ = place.log_in(subject)
    assert tenant.admin.ask("POST", "/v1/me/account/remove", {"password": "not the password"}).status == 403
    tenant.admin.post("/v1/me/account/remove", {"password": PASSWORD})
    assert place.log_in(subject)[1].status == 401 and browser.person is None
    member = place.member()
    reset = f"/v1/users/{member.id}/reset"
    assert tenant.admin.ask("POST", reset, {}).status == 400, "it would be no way in at all"
    tenant.admin.post(reset, {"password": PASSWORD})
    assert place.log_in(member.subject)[1].status == 401
    assert place.linked(Person(place.server.identity, member.name, PASSWORD))


def test_somebody_whose_session_ended_links_nothing(place: Place) -> None:
    subject = place.account()
    person = Person(place.server.identity, f"{place.home.name}-admin", PASSWORD)
    browser = place.browser()
    browser.cookies[SESSION] = person.headers["Cookie"].partition("=")[2]
    sent = browser.ask("POST", "/settings/oidc", {"password": PASSWORD, "csrf": person.headers["X-Csrf-Token"]})
    assert "csrf" not in sent.onward and SESSION not in sent.onward
    person.delete("/v1/session")
    answer = browser.come(place.example.let_in(sent.onward, subject))
    assert answer.status == 401 and place.log_in(subject)[1].status == 401
    stranger = place.browser().ask("POST", "/settings/oidc", {"password": PASSWORD})
    assert stranger.status == 303 and stranger.onward.startswith("/login")


def test_it_leads_nowhere_else_and_says_nothing_that_others_say(place: Place) -> None:
    subject = place.member().subject
    for there in ("//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example"):
        _, answer = place.log_in(subject, f"/login/oidc?{urlencode({'next': there})}")
        assert answer.onward == "/"
    browser = place.browser()
    asked = dict(each.split("=") for each in urlsplit(browser.ask("GET", "/login/oidc").onward).query.split("&"))
    answer = browser.come({"state": asked["state"], "error": "<b>evil</b>", "error_description": "call 555-EVIL"})
    assert answer.status == 401 and "evil" not in answer.text.lower() and "has not let you in" in answer.said
    foreign = browser.ask("GET", "/login/oidc", headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status == 200 and COOKIE not in foreign.set, "a link of somebody else's begins nothing"


def test_without_the_provider_the_password_still_does(place: Place) -> None:
    subject, name = place.member().subject, f"{place.home.name}-admin"
    browser = place.browser()
    told = place.example.let_in(browser.ask("GET", "/login/oidc").onward, subject)
    place.example.answers["/token"] = lambda: (b"<html>", 502)
    answer = browser.come(told)
    assert answer.status == 503 and "password" in answer.said and browser.person is None
    page = browser.ask("POST", "/login", {"name": name, "password": PASSWORD})
    assert page.status == 303 and browser.person == name
    assert '"reason": "status 502: <html>"' in place.server.log()


def test_many_failures_from_an_address_have_to_wait(place: Place) -> None:
    subject = place.member().subject
    browser = place.browser()
    there = {"X-Forwarded-For": "203.0.113.9"}
    asked = dict(each.split("=") for each in urlsplit(browser.ask("GET", "/login/oidc").onward).query.split("&"))
    sealed = browser.cookies[COOKIE]
    told = {"state": asked["state"], "code": "guessed"}
    tries = (Browser(browser.server, {COOKIE: sealed}) for _ in range(attempts.ALLOWED_ADDRESS + 1))
    statuses = [each.come(told, there).status for each in tries]
    assert statuses == [401] * attempts.ALLOWED_ADDRESS + [429]
    assert place.log_in(subject)[0].person is not None, "others do not"


def test_what_is_said_of_a_provider_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cli._oidc() is None
    said = {"ISSUER": "https://id.example/", "CLIENT": "c", "NAME": "Example", "URL": "https://backup.example/"}
    for name, value in said.items():
        monkeypatch.setenv(f"HEADSTART_SERVER_OIDC_{name}", value)
    with pytest.raises(errors.Usage, match="OIDC_SECRET"):
        cli._oidc()
    (tmp_path / "secret").write_text("in a file\n")
    monkeypatch.setenv("HEADSTART_SERVER_OIDC_SECRET_FILE", str(tmp_path / "secret"))
    found = cli._oidc()
    assert found is not None and found.secret == "in a file" and found.secret not in repr(found)
    assert (found.issuer, found.url) == ("https://id.example/", "https://backup.example")
    monkeypatch.setenv("HEADSTART_SERVER_OIDC_ISSUER", "http://id.example")
    with pytest.raises(errors.Usage, match="https"):
        cli._oidc()


# -- in a browser


@pytest.fixture
def page(place: Place) -> Iterator[Page]:
    """At the end, no page of ours has broken the policy of contents, nor failed otherwise."""
    if shutil.which(browser.CHROMIUM) is None:
        pytest.skip("needs Debian's chromium")
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if browser.complains(message):
            complaints.append(message.text)

    with browser.launched() as chromium:
        context = chromium.new_context(base_url=place.server.identity.url, ignore_https_errors=True)
        opened = context.new_page()
        opened.set_default_timeout(30_000)
        opened.on("console", said)
        yield opened
    assert not complaints


def test_in_a_browser(page: Page, place: Place) -> None:
    tenant = place.home
    subject = place.account()
    page.goto("/settings")
    page.get_by_label("Name").fill(f"{tenant.name}-admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    page.get_by_label("Your password here").fill(PASSWORD)
    page.get_by_role("button", name="Link your account").click()
    page.get_by_label("Account").fill(subject)
    page.get_by_role("button", name="Let me in").click()
    expect(page.get_by_role("status")).to_contain_text("Linked")
    page.get_by_role("button", name="Log out").click()
    page.goto("/hosts")
    page.get_by_role("link", name="Log in with Example").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("has not let you in")
    page.get_by_role("link", name="Log in with Example").click()
    page.get_by_label("Account").fill(subject)
    page.get_by_role("button", name="Let me in").click()
    expect(page).to_have_url(re.compile("/hosts$"))
    expect(page.get_by_role("heading", name="Hosts")).to_be_visible()
    page.goto("/users")
    page.get_by_label("Name").fill(f"{tenant.name}-carla")
    page.get_by_label("or e-mail at Example").fill("carla@example.org")
    page.get_by_role("button", name="Make it").click()
    link = page.locator("#link").inner_text()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(re.compile("/login"))
    page.goto(link)
    page.get_by_role("link", name="Log in with Example").click()
    page.get_by_label("Account").fill(place.account("carla@example.org"))
    page.get_by_role("button", name="Let me in").click()
    expect(page.locator("#menu")).to_contain_text(f"{tenant.name}-carla")
