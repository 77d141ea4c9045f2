"""The server as a store: who may do what with objects, what is looked at when they come, and how long they stay."""

from __future__ import annotations

import http.client
import signal
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.repository import keyring, layout, lease, protection
from headstart.repository.root import Root
from headstart.server import attempts, objects, repositories
from headstart.server.call import Call
from headstart.server.checking import Checker
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site
from headstart.store import address, membership
from headstart.store.contract import Exists, Missing, Refused
from headstart.store.local import LocalStore
from headstart.store.retrying import RetryingStore
from headstart.store.server import ServerStore
from headstart.wire import https
from headstart.wire.https import Client, Identity
from tests.kit import certificates
from tests.kit.cli import Cli
from tests.kit.server import Person, Server, Tenant
from tests.kit.shop import site_of
from tests.kit.stores import PASSWORD, QUICK
from tests.kit.waiting import wait_until
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise
from tests.server.packs import pack

STRUCTURE = b"opens no content"
DAY = 86400.0


@pytest.fixture(scope="module")
def tenant(server: Server) -> Tenant:
    made = server.tenant("storing")
    made.repository()
    made.repository("other")
    return made


def store(tenant: Tenant, host: str, name: str = "main") -> ServerStore:
    return ServerStore(Client(tenant.host(host, name).identity), name)


def program(tenant: Tenant, role: str, scope: str | None = None, name: str = "main") -> ServerStore:
    return ServerStore(tenant.program(role, scope).client, name)


def test_a_host_adds_and_reads_and_removes_nothing(tenant: Tenant) -> None:
    mine = store(tenant, "adding")
    for number, key in enumerate((f"packs/{1:032x}", f"snapshots/{1:032x}", f"labels/{1:032x}/{1:032x}")):
        kind = objects.KINDS[key.partition("/")[0] + "/"]
        mine.create(key, layout.header(kind) + bytes([number]))
        with pytest.raises(Refused, match="no right"):
            mine.delete(key)
        assert mine.read(key)


def test_of_leases_and_drafts_a_host_takes_back_its_own(tenant: Tenant) -> None:
    mine, theirs = store(tenant, "mine"), store(tenant, "theirs")
    for prefix, kind in ((layout.LEASES, layout.Kind.LEASE), (layout.DRAFTS, layout.Kind.DRAFT)):
        key = f"{prefix}{5:032x}/00000000"
        mine.create(key, layout.header(kind))
        with pytest.raises(Refused, match="no right"):
            theirs.delete(key)
        mine.delete(key)
        assert not dict(mine.list(key))


def test_a_hosts_domain_is_its_repository(tenant: Tenant) -> None:
    mine = store(tenant, "bounded", "other")
    mine.create(f"packs/{9:032x}", pack(9))
    elsewhere = ServerStore(mine._client, "main")
    nowhere = ServerStore(mine._client, "nothing")
    for each in (elsewhere, nowhere):
        with pytest.raises(Missing, match="no repository"):
            each.read(f"packs/{9:032x}")
        with pytest.raises(errors.NotFound, match="no repository"):
            list(each.list(""))
        with pytest.raises(Missing):
            each.create(f"packs/{8:032x}", pack(8))


def test_programs_have_the_rights_of_their_role_in_their_repository(tenant: Tenant) -> None:
    key = f"packs/{20:032x}"
    program(tenant, "admin").create(key, pack(20))
    assert program(tenant, "operator").read(key) == pack(20)
    with pytest.raises(Refused, match="no right"):
        program(tenant, "viewer").read(key)
    with pytest.raises(Refused, match="no right"):
        program(tenant, "operator").create(f"packs/{21:032x}", pack(21))
    with pytest.raises(Missing):
        program(tenant, "admin", "other").read(key)
    program(tenant, "admin").delete(key)


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (f"packs/{30:032x}", b""),
        (f"packs/{30:032x}", layout.header(layout.Kind.SNAPSHOT) + b"x"),
        ("strange/name", layout.header(layout.Kind.PACK)),
        ("site/marker", layout.header(layout.Kind.PACK)),
        ("packs", layout.header(layout.Kind.PACK)),
    ],
)
def test_what_is_no_object_of_a_repository_is_refused(tenant: Tenant, key: str, data: bytes) -> None:
    with pytest.raises(Refused):
        program(tenant, "admin").create(key, data)


def test_what_came_is_what_was_meant(tenant: Tenant) -> None:
    identity = tenant.program("admin").client.identity
    headers = {"Content-Digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"}
    path = f"/v1/repositories/main/objects/packs/{31:032x}"
    assert Client(identity).request("PUT", path, pack(31), headers).status == 422
    assert Client(identity).request("PUT", path, pack(31)).status == 400
    assert f"packs/{31:032x}" not in dict(program(tenant, "admin").list("packs/"))


# -- what the key of the structure lets the server see


@pytest.fixture
def sealed(server: Server, request: pytest.FixtureRequest) -> Iterator[tuple[Tenant, ServerStore]]:
    tenant = server.tenant(f"sealed{abs(hash(request.node.name)) % 10**8}")
    tenant.repository()
    store = program(tenant, "admin")
    with repository.create(store, PASSWORD, cost=QUICK) as repo:
        keyring.add(repo, STRUCTURE, time.time(), structure_alone=True, cost=QUICK)
    yield tenant, store


def give(tenant: Tenant, password: bytes) -> int:
    path = "/v1/repositories/main/structure"
    return tenant.admin.ask("PUT", path, {"password": password.decode()}).status


def test_the_server_takes_no_password_that_opens_content(sealed: tuple[Tenant, ServerStore]) -> None:
    tenant, _ = sealed
    assert give(tenant, PASSWORD) == 400
    assert give(tenant, b"a wrong one") == 401
    assert not tenant.admin.get("/v1/repositories")[0]["structure"]
    assert give(tenant, STRUCTURE) == 204
    assert tenant.admin.get("/v1/repositories")[0]["structure"]
    tenant.admin.delete("/v1/repositories/main/structure")
    assert not tenant.admin.get("/v1/repositories")[0]["structure"]


def test_guesses_at_passwords_are_counted_and_a_right_one_forgives_none(sealed: tuple[Tenant, ServerStore]) -> None:
    """Who has a key of the structure could try any number of passwords of the content otherwise."""
    tenant, _ = sealed
    statuses = [give(tenant, word) for _ in range(6) for word in (STRUCTURE, b"a guess", b"another")]
    assert statuses[:3] == [204, 401, 401]
    assert statuses.count(401) == attempts.ALLOWED_PAIR and statuses[-1] == 429
    unlock = {"password": PASSWORD.decode()}
    assert tenant.admin.ask("POST", "/v1/repositories/main/unlock", unlock).status == 429


def test_there_is_no_key_before_a_host_has_made_the_repository(server: Server) -> None:
    tenant = server.tenant("unmade")
    tenant.repository()
    answer = tenant.admin.ask("PUT", "/v1/repositories/main/structure", {"password": "x"})
    assert answer.status == 404 and "There is no key yet" in answer.detail and str(server.folder) not in answer.detail


def test_packs_are_checked_by_their_own_index_without_the_content(sealed: tuple[Tenant, ServerStore]) -> None:
    tenant, store = sealed
    assert give(tenant, STRUCTURE) == 204
    with repository.open(store, lambda: PASSWORD) as repo:
        image = Image(4 * BLOCK, {number: noise(number) for number in range(3)})
        samples.add_snapshot(repo, {"sda": image}, "web", 1000.0)
    key = next(key for key, _ in store.list("packs/"))
    good = store.read(key)
    store.delete(key)
    for place in (layout.PACK_START + 5, len(good) // 2, len(good) - 30):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(Refused, match="damaged"):
            store.create(key, bad)
    with pytest.raises(Refused, match="damaged"):
        store.create(f"packs/{77:032x}", good)  # under another name
    store.create(key, good)


# -- how long objects stay


class Clocked(LocalStore):
    """With another idea of what time it is than the file system."""

    ahead = 0.0

    def clock(self) -> float:
        return super().clock() + self.ahead


@pytest.fixture
def site(tmp_path: Path) -> Site:
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    opened = open_site(settings)
    return Site(opened.settings, opened.database, opened.sealer, open_store=lambda url, _: Clocked(Path(url)))


def made(site: Site, days: int) -> tuple[Call, repositories.Place]:
    """An admin, and a repository of a tenant that the tables know."""
    from headstart.server import admins, tenants

    now = site.clock()
    with site.database.write() as connection:
        tenant = tenants.create(connection, Call(admins.CONSOLE, now), "somebody")
        call = Call(Principal("1" * 32, "admin", Role.ADMIN, tenant), now)
        name = repositories.create(connection, call, "main", days)
        return call, repositories.get(connection, call.who, name)


def add(site: Site, call: Call, place: repositories.Place, key: str, data: bytes) -> None:
    import base64
    import hashlib

    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"
    objects.add(site, call, place, key, data, digest, Checker())


def test_nobody_removes_what_is_immutable_by_the_servers_clock(site: Site) -> None:
    call, place = made(site, 3)
    key = f"packs/{1:032x}"
    add(site, call, place, key, pack(1))
    store = place.store(site)
    assert isinstance(store, Clocked)
    whole = protection.of(3).seconds
    for ahead in (0.0, 3 * DAY, whole - 60):
        Clocked.ahead = ahead
        with pytest.raises(errors.Busy, match="immutable"):
            objects.remove(site, call, place, key)
    try:
        objects.extend(site, call, place, key, store.clock() + whole)
        with pytest.raises(errors.Denied, match="no lock is made shorter"):
            objects.extend(site, call, place, key, store.clock() + whole - DAY)
        with pytest.raises(errors.Denied, match="none for longer"):
            objects.extend(site, call, place, key, store.clock() + 100 * DAY)
        Clocked.ahead = whole + 60
        with pytest.raises(errors.Busy, match="immutable"):
            objects.remove(site, call, place, key)
        Clocked.ahead = 2 * whole
        objects.remove(site, call, place, key)
    finally:
        Clocked.ahead = 0.0
    assert not dict(store.list("packs/"))


def test_a_repository_can_ask_for_no_more_days_than_the_servers(server: Server, tmp_path: Path) -> None:
    tenant = server.tenant("immutable")
    tenant.repository("main", immutable_days=2)
    identity = tenant.program("admin").client.identity
    cli = Cli(tmp_path)
    cli.environment |= {"HEADSTART_TOKEN": identity.token, "HEADSTART_FINGERPRINT": identity.fingerprint}
    where = ("--repository", f"{identity.url}/main")
    refused = cli.run(*where, "init", "--immutable", "3", expect=14).error
    assert "2 days" in refused["error"]["message"]
    assert cli.run(*where, "init", "--immutable", "2").json["immutable_days"] == 2
    key = next(key for key, _ in ServerStore(Client(identity), "main").list("keys/"))
    with pytest.raises(Refused, match="immutable"):
        ServerStore(Client(identity), "main").delete(key)


def test_a_lease_that_is_there_is_nobodys_because_of_an_attempt_to_make_it(server: Server, tenant: Tenant) -> None:
    site = site_of(server)
    with site.database.read() as connection:
        place = repositories.named(connection, tenant.id, "main")
    assert place is not None
    key, mine = f"leases/{'7' * 32}", store(tenant, "grasping")
    data = layout.header(layout.Kind.LEASE) + bytes(100)
    place.store(site).create(key, data)  # as the server's own hands do
    with pytest.raises(Exists):
        mine.create(key, data)
    with pytest.raises(Refused):
        mine.delete(key)
    assert dict(place.store(site).list(key))


def test_fewer_days_than_it_was_made_with_are_told_and_keep_nobody_out(server: Server, tmp_path: Path) -> None:
    tenant = server.tenant("lowered")
    made = tenant.repository("main", immutable_days=3)
    identity = tenant.program("admin").client.identity
    cli = Cli(tmp_path)
    cli.environment |= {"HEADSTART_TOKEN": identity.token, "HEADSTART_FINGERPRINT": identity.fingerprint}
    cli.environment["HEADSTART_REPOSITORY"] = f"{identity.url}/main"
    cli.run("init", "--immutable", "3")
    assert tenant.admin.ask("PUT", f"/v1/repositories/{made}", {"immutable_days": 1}).status == 204
    assert cli.run("snapshots").json["snapshots"] == []
    told = "it was made to be immutable for 3 days, and the server keeps its objects for 1"
    assert ("warning", told) in [(each["level"], each["what"]) for each in cli.run("doctor").json["findings"]]
    with repository.open(ServerStore(Client(identity), "main"), lambda: b"correct horse") as repo:
        assert (repo.promised_days, repo.immutable_days) == (3, 1)


def test_a_list_that_was_asked_for_too_often_is_asked_for_again(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = store(tenant, "listing")
    lines, refused = mine._client.lines, iter([errors.TooOften("Not so often.")])

    def sometimes(path: str) -> Iterator[bytes]:
        for error in refused:
            raise error
        return lines(path)

    monkeypatch.setattr(mine._client, "lines", sometimes)
    assert list(RetryingStore(mine, sleep=lambda _: None).list("keys/")) == []
    assert not list(refused)


def test_a_lease_comes_and_goes_in_an_immutable_repository(server: Server) -> None:
    tenant = server.tenant("leasing")
    tenant.repository("main", immutable_days=2)
    mine = store(tenant, "leasing")
    with repository.create(mine, PASSWORD, cost=QUICK, immutable_days=2) as repo:
        with lease.reading(repo, "test", [Root("0" * 32, "sda", BLOCK, None)], []) as held:
            assert held and len(lease.names(repo)) == 1
        assert not lease.names(repo)


# -- whom a client trusts


def test_another_certificate_than_the_pinned_one_is_told(server: Server) -> None:
    good = server.identity
    with pytest.raises(https.Untrusted, match="another certificate"):
        Client(Identity(good.url, "", "0" * 64)).request("GET", "/v1/health/live")


def test_a_certificate_of_its_own_is_not_trusted_without_its_fingerprint(server: Server) -> None:
    with pytest.raises(https.Untrusted, match="authority"):
        Client(Identity(server.identity.url, "")).request("GET", "/v1/health/live")


@dataclass(slots=True)
class Certified:
    """A server with a certificate of an authority's, which ``put`` replaces."""

    server: Server
    folder: Path

    def put(self, certificate: Path, key: Path) -> None:
        (self.folder / "server.crt").write_bytes(certificate.read_bytes())
        (self.folder / "server.pem").write_bytes(key.read_bytes())

    def reload(self, said: str) -> None:
        """Until the log has said that once more."""
        before, process = self.server.log().count(said), self.server.process
        assert process is not None
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.server.log().count(said) > before)

    def shown(self) -> bytes:
        """To who connects now."""
        text = ssl.get_server_certificate(("127.0.0.1", self.server.port))
        return ssl.PEM_cert_to_DER_cert(text)

    def connect(self, authority: Path) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(authority))
        return http.client.HTTPSConnection("127.0.0.1", self.server.port, context=context, timeout=20)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certified]:
    folder = tmp_path_factory.mktemp("certified")
    for name in ("one", "two"):
        certificates.make(folder / name, folder / f"client-{name}")
    files = ("--certificate", str(folder / "server.crt"), "--key", str(folder / "server.pem"))
    made = Certified(Server(folder / "server", files), folder)
    made.put(folder / "one" / "server-cert.pem", folder / "one" / "server-key.pem")
    with made.server:
        yield made


def test_one_of_an_authority_is_trusted_with_that(certified: Certified, monkeypatch: pytest.MonkeyPatch) -> None:
    assert certified.server.identity.fingerprint == ""
    for host in ("127.0.0.1", "localhost"):
        url = f"https://{host}:{certified.server.port}"
        with pytest.raises(https.Untrusted, match="HEADSTART_CA_BUNDLE"):
            Client(Identity(url, "")).request("GET", "/v1/health/live")
        with monkeypatch.context() as patched:
            patched.setenv(https.CERTIFICATES, str(certified.folder / "one" / "ca-cert.pem"))
            assert Client(Identity(url, "")).request("GET", "/v1/health/live").status == 200


def test_a_browser_is_told_never_to_let_a_bad_one_pass_where_it_is_an_authoritys(
    certified: Certified, server: Server
) -> None:
    link = certified.connect(certified.folder / "one" / "ca-cert.pem")
    link.request("GET", "/v1/health/live")
    assert link.getresponse().headers["strict-transport-security"] == "max-age=31536000"
    own = Client(server.identity).request("GET", "/v1/health/live")
    assert "strict-transport-security" not in own.headers


def test_a_renewed_one_is_taken_up_and_a_bad_one_is_not(certified: Certified) -> None:
    one, two = certified.folder / "one", certified.folder / "two"
    before = certified.shown()
    link = certified.connect(one / "ca-cert.pem")
    link.request("GET", "/v1/health/live")
    assert link.getresponse().read()
    kept = link.sock
    for certificate, key in (
        (two / "server-cert.pem", one / "server-key.pem"),
        (two / "server-key.pem", two / "server-key.pem"),
        (two / "server-cert.pem", two / "server-cert.pem"),
    ):
        certified.put(certificate, key)
        certified.reload("was not replaced")
        assert certified.shown() == before
    certified.put(two / "server-cert.pem", two / "server-key.pem")
    certified.reload("was read again")
    assert certified.shown() == ssl.PEM_cert_to_DER_cert((two / "server-cert.pem").read_text())
    # Who was there before goes on, on the same connection.
    link.request("GET", "/v1/health/live")
    assert link.getresponse().read()
    assert link.sock is kept is not None
    # For those that come after this.
    certified.put(one / "server-cert.pem", one / "server-key.pem")
    certified.reload("was read again")


def test_a_certificate_of_its_own_stays_whatever_signal_comes(server: Server) -> None:
    Certified(server, server.folder).reload("no certificate of an authority")
    assert Client(server.identity).request("GET", "/v1/health/live").status == 200


def test_a_process_goes_on_with_the_token_that_came_in_place_of_its_own(
    server: Server, tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / membership.FILE
    first = tenant.host("renewing")
    membership.save(kept, first)
    monkeypatch.setenv(membership.PATH, str(kept))
    opened = address.open_store(first.address, 5.0)
    opened.create(f"packs/{60:032x}", pack(60))
    # The daemon renews it, and the one before ends.
    renewed = Person(first.identity).post("/v1/host/token", None)
    tokens = tenant.admin.get("/v1/tokens")
    old = next(each["id"] for each in tokens if each["host"] == first.host and each["id"] in first.token)
    tenant.admin.delete(f"/v1/tokens/{old}")
    with pytest.raises(errors.HeadstartError, match=r"token"):
        opened.read(f"packs/{60:032x}")  # the file says nothing new
    membership.save(kept, replace(first, token=renewed["token"]))
    assert opened.read(f"packs/{60:032x}") == pack(60)
    opened.create(f"packs/{61:032x}", pack(61))
    assert f"packs/{61:032x}" in dict(opened.list("packs/"))


@pytest.mark.parametrize(
    "url", ["http://backup.example.com:8443", "https://", "ftp://x", "https://x:8443/path", "https://x:port"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(errors.Usage):
        Client(Identity(url, "secret")).request("GET", "/")


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(https.Unanswered, match="does not answer"):
        Client(Identity("https://127.0.0.1:9", "")).request("GET", "/")
    refused = Cli(tmp_path).run("join", "https://127.0.0.1:9", f"hsj_{'0' * 32}_{'a' * 64}", expect=25).error
    assert "does not answer" in refused["error"]["message"]


def test_an_admin_reads_from_any_machine_with_a_token(server: Server, tmp_path: Path) -> None:
    tenant = server.tenant("anywhere")
    tenant.repository()
    mine = program(tenant, "admin")
    with repository.create(mine, b"correct horse", cost=QUICK) as repo:
        image = Image(4 * BLOCK, {number: noise(40 + number) for number in range(3)})
        manifest = samples.add_snapshot(repo, {"sda": image}, "web", 1000.0)
    identity = tenant.program("operator").client.identity
    cli = Cli(tmp_path)
    cli.environment |= {"HEADSTART_TOKEN": identity.token, "HEADSTART_FINGERPRINT": identity.fingerprint}
    where = ("--repository", f"{identity.url}/main")
    assert [each["id"] for each in cli.run(*where, "snapshots").json["snapshots"]] == [manifest.id]
    cli.run(*where, "restore", manifest.id, tmp_path / "restored", "--format", "raw")
    restored = (tmp_path / "restored" / "sda.raw").read_bytes()
    assert all(restored[number * BLOCK :][:BLOCK] == noise(40 + number) for number in range(3))
    refused = cli.run(*where, "forget", manifest.id, expect=None)
    assert refused.status not in (0, 1) and "no right" in refused.error["error"]["message"]


def test_strangers_are_told_to_join(tmp_path: Path, server: Server) -> None:
    where = ("--repository", f"{server.identity.url}/main")
    refused = Cli(tmp_path).run(*where, "snapshots", expect=2).error
    assert "headstart join" in refused["error"]["message"]
    assert Person(server.identity).ask("GET", "/v1/repositories/main/objects").status == 401
