"""The files of a snapshot through the server: for who has the password, and nobody else; each is what is there."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import struct
import tarfile
import threading
import time
import zlib
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import create_engine, delete, insert
from starlette.requests import ClientDisconnect

from headstart import errors, repository
from headstart.repository import proof
from headstart.repository.proof import Evidence, Proof
from headstart.restore.files.contents import Contents
from headstart.server import browsing, evidence, tables, unlocking
from headstart.server.api import sending
from headstart.server.browsing import Key, Shelf
from headstart.server.evidence import NoPicture
from headstart.store.memory import MemoryStore
from headstart.store.server import ServerStore
from headstart.wire.https import Answer, Client
from tests.kit import browser, tenancy
from tests.kit.server import PASSWORD as LOGIN
from tests.kit.server import Person, Server, Tenant
from tests.kit.stores import PASSWORD, QUICK
from tests.restore import stored
from tests.restore.files.images import ext4, opened

HOSTILE = "<img src=x onerror=alert(1)>.html"
LARGE = bytes(range(256)) * 12_000  # 3 MiB
FILES = {
    "etc/hosts": b"127.0.0.1 localhost\n",
    f"srv/www/{HOSTILE}": b"<script>alert('owned')</script>",
    "srv/large": LARGE,
    "srv/n\u00e4me with \U0001f680": b"odd",
}
#: Latin-1, as file systems have had names for long.
OLD = "odd/t\udce9l\udce9/\udce9t\udce9"

PROVEN = Proof(1.7e9, "alpha", True, 9.0, "agent")


def _png(width: int, height: int) -> bytes:
    """Grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    return evidence.PNG + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SCREEN = _png(64, 48)


@dataclass(frozen=True, slots=True)
class Shown:
    server: Server
    tenant: Tenant
    snapshot: str

    def path(self, what: str, **query: str) -> str:
        return f"/v1/snapshots/{self.snapshot}/{what}?{urlencode(query)}"

    def unlock(self, person: Person, password: bytes = PASSWORD) -> Answer:
        return person.ask("POST", "/v1/repositories/main/unlock", {"password": password.decode()})


@pytest.fixture(scope="module")
def shown(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    tenant = server.tenant("browsing")
    tenant.repository()
    host = tenant.host("alpha")
    image = ext4(tmp_path_factory.mktemp("image"), "system", {**FILES, OLD: b"summer"})
    with repository.create(ServerStore(Client(host.identity), "main"), PASSWORD, cost=QUICK) as repo:
        manifest = stored.store_snapshot(repo, {"sda": image.read_bytes()})
        proof.record(repo, manifest.id, PROVEN, Evidence(SCREEN))
    disk = {"size": image.stat().st_size, "changed_bytes": 1, "precopied_bytes": 0, "residue_bytes": 1}
    report = {
        "snapshot": manifest.id,
        "vm": "web",
        "created": time.time(),
        "consistency": "crash",
        "window_seconds": 0.5,
        "disks": [{**disk, "stored_bytes": 1}],
    }
    run = {"number": 1, "vm": "web", "verb": "backup", "begun": 1.0, "ended": 2.0, "report": report}
    machine = Person(host.identity)
    machine.post("/v1/host/pulse", {"version": "1", "state": {}, "vms": {"web": None}})
    machine.post("/v1/host/runs", {"runs": [run]})
    machine.post("/v1/host/pulse", {"version": "1", "state": {"rehearsals": True}, "vms": {}})
    wanted = {"kind": "rehearse", "snapshot": manifest.id}
    order = tenant.admin.post(f"/v1/hosts/{host.host}/orders", wanted)["id"]
    done = {"state": "done", "result": asdict(PROVEN)}
    machine.post("/v1/host/pulse", {"version": "1", "state": {}, "vms": {}, "orders": {order: done}})
    return Shown(server, tenant, manifest.id)


def test_what_is_listed_and_downloaded_is_what_is_there(shown: Shown) -> None:
    admin = shown.tenant.admin
    told = {"X-Unlock": shown.unlock(admin).json()["unlock"]}
    seen = admin.ask("GET", shown.path("volumes"), headers=told).json()
    assert [(each["content"], each["mounted"]) for each in seen] == [("ext4", "/")]
    listed = admin.ask("GET", shown.path("files", path="/srv"), headers=told).json()
    found = {each["name"]: (each["kind"], each["size"]) for each in listed["files"]}
    assert found["large"] == ("file", len(LARGE)) and found["www"][0] == "directory"
    for name, content in FILES.items():
        answer = admin.ask("GET", shown.path("file", path=f"/{name}"), headers=told)
        assert answer.status == 200 and answer.data == content
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert quote(name.rpartition("/")[2], safe="") in answer.headers["content-disposition"]
        assert "sandbox" in answer.headers["content-security-policy"]
    by_volume = admin.ask("GET", shown.path("file", volume=seen[0]["name"], path="/etc/hosts"), headers=told)
    assert by_volume.data == FILES["etc/hosts"]


def test_names_that_are_no_utf_8_are_listed_and_lead_to_what_they_name(shown: Shown) -> None:
    admin = shown.tenant.admin
    told = {"X-Unlock": shown.unlock(admin).json()["unlock"]}
    folder = f"/v1/snapshots/{shown.snapshot}/files?path=/odd"
    (listed,) = admin.ask("GET", folder, headers=told).json()["files"]
    assert (listed["name"], listed["quoted"]) == ("t\\xe9l\\xe9", "t%E9l%E9")
    answer = admin.ask("GET", f"{folder}/{listed['quoted']}", headers=told).json()
    assert answer["path"] == "/odd/t\\xe9l\\xe9" and answer["files"][0]["quoted"] == "%E9t%E9"
    after = admin.ask("GET", f"{folder}/{listed['quoted']}&after=%E9t%E9", headers=told).json()
    assert after["files"] == []
    file = admin.ask("GET", f"/v1/snapshots/{shown.snapshot}/file?path=/odd/t%E9l%E9/%E9t%E9", headers=told)
    assert file.data == b"summer" and "UTF-8''%E9t%E9" in file.headers["content-disposition"]
    assert "/odd/t\\xe9l\\xe9/\\xe9t\\xe9" in admin.get("/v1/audit")[0]["object"]
    missing = admin.ask("GET", f"{folder}/%E9", headers=told)
    assert missing.status == 404 and admin.ask("GET", f"{folder}/%E9&volume=%E9", headers=told).status in (400, 404)

    # On the pages: also through the form that asks for the password.
    page, cookies = f"/snapshots/{shown.snapshot}/files?path=/odd/t%E9l%E9", admin.headers["Cookie"]
    locked = admin.ask("GET", page).data.decode()
    assert 'name="path" value="/odd/t%E9l%E9"' in locked
    form = {"csrf": admin.headers["X-Csrf-Token"], "password": PASSWORD.decode(), "path": "/odd/t%E9l%E9"}
    sent = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
    opened = admin.client.request("POST", f"/snapshots/{shown.snapshot}/unlock", urlencode(form).encode(), sent)
    assert opened.status == 303 and opened.headers["location"].endswith("?path=%2Fodd%2Ft%E9l%E9")
    cookie = opened.headers["set-cookie"].partition(";")[0]
    seen = admin.client.request("GET", opened.headers["location"], None, {"Cookie": f"{cookies}; {cookie}"})
    assert seen.status == 200 and "\\xe9t\\xe9</bdi>" in seen.data.decode()
    assert "path=%2Fodd%2Ft%E9l%E9%2F%E9t%E9" in seen.data.decode()


def test_a_directory_comes_as_tar(shown: Shown) -> None:
    admin = shown.tenant.admin
    told = {"X-Unlock": shown.unlock(admin).json()["unlock"]}
    answer = admin.ask("GET", shown.path("archive", path="/srv"), headers=told)
    with tarfile.open(fileobj=io.BytesIO(answer.data)) as archive:
        found = {}
        for member in archive:
            if member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
    assert found == {name: content for name, content in FILES.items() if name.startswith("srv/")}


def test_who_downloads_what_stands_in_the_tenants_audit_log(shown: Shown) -> None:
    admin = shown.tenant.admin
    told = {"X-Unlock": shown.unlock(admin).json()["unlock"]}
    admin.ask("GET", shown.path("file", path="/etc/hosts"), headers=told)
    acts = [(each["act"], each["object"]) for each in admin.get("/v1/audit")]
    assert ("file.download", f"{shown.snapshot}/etc/hosts") in acts and "repository.unlock" in {act for act, _ in acts}
    assert "etc/hosts" not in shown.server.log()


def test_the_screen_that_a_rehearsal_saw_comes_as_it_is(shown: Shown) -> None:
    admin = shown.tenant.admin
    told = {"X-Unlock": shown.unlock(admin).json()["unlock"]}
    answer = admin.ask("GET", shown.path("screenshot"), headers=told)
    assert answer.data == SCREEN and answer.headers["content-type"] == "image/png"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    acts = [(each["act"], each["object"]) for each in admin.get("/v1/audit")]
    assert ("screenshot.download", shown.snapshot) in acts


def test_what_is_no_small_picture_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a host has put there: pages of its own, or what swells."""
    store = MemoryStore()
    with repository.create(store, PASSWORD, cost=QUICK) as repo:
        manifest = stored.store_snapshot(repo, {"sda": bytes(1 << 16)})

        def seen(picture: bytes, moment: float) -> bytes:
            proof.record(repo, manifest.id, replace(PROVEN, time=moment), Evidence(picture))
            return evidence.screenshot(store, repo.secrets, manifest.id)

        with pytest.raises(NoPicture, match="No picture came"):
            evidence.screenshot(store, repo.secrets, manifest.id)
        assert seen(SCREEN, 1.0) == SCREEN
        hostile = evidence.PNG + b"<script>alert(1)</script>"
        assert seen(hostile, 2.0) == hostile, "whatever comes after its first bytes is for nobody here to read"
        with pytest.raises(NoPicture, match="has no screen"):
            seen(b"", 3.0)
        with pytest.raises(NoPicture, match="no PNG"):
            seen(b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 4.0)
        with pytest.raises(NoPicture, match="larger"):
            seen(evidence.PNG + bytes(evidence.LONGEST), 5.0)
        assert seen(SCREEN, 6.0) == SCREEN
        with pytest.raises(NoPicture, match="larger"):
            seen(evidence.PNG + bytes(64 << 20), 7.0)  # 64 KiB as it is stored
        monkeypatch.setattr(evidence, "_OBJECT", 1000)
        with pytest.raises(NoPicture, match="larger"):
            seen(evidence.PNG + os.urandom(1000), 8.0)


def test_what_two_repositories_have_opens_with_either_ones_unlocking(shown: Shown) -> None:
    admin, its = shown.tenant.admin, tables.snapshots.c
    second = shown.tenant.repository("second")
    (row,) = tenancy.rows(shown.server, tables.snapshots, its.id == shown.snapshot)
    folder = shown.server.folder / "objects" / shown.tenant.id
    shutil.copytree(folder / row["repository"], folder / second)
    engine = create_engine(tenancy.database(shown.server))
    with engine.begin() as connection:
        connection.execute(insert(tables.snapshots).values({**row, "repository": second}))
    for name in ("main", "second"):
        unlock = admin.post(f"/v1/repositories/{name}/unlock", {"password": PASSWORD.decode()})["unlock"]
        answer = admin.ask("GET", shown.path("file", path="/etc/hosts"), headers={"X-Unlock": unlock})
        assert answer.data == FILES["etc/hosts"], name
    assert admin.ask("GET", shown.path("file", path="/etc/hosts"), headers={"X-Unlock": "x"}).status == 401
    with engine.begin() as connection:
        connection.execute(delete(tables.snapshots).where(its.repository == second))


@pytest.mark.parametrize("path", ["files", "file", "archive", "volumes", "screenshot"])
def test_without_the_password_nothing_is_seen(shown: Shown, path: str) -> None:
    admin = shown.tenant.admin
    theirs = shown.unlock(shown.tenant.program("operator")).json()["unlock"]
    for unlock in ("", "nonsense", "!", theirs, theirs[:-4] + "AAAA"):
        answer = admin.ask("GET", shown.path(path, path="/etc/hosts"), headers={"X-Unlock": unlock})
        assert answer.status == 401 and b"localhost" not in answer.data, unlock


def test_wrong_passwords_are_counted(shown: Shown) -> None:
    guesser = shown.tenant.program("operator")
    statuses = [shown.unlock(guesser, b"a guess").status for _ in range(12)]
    assert statuses[0] == 401 and statuses[-1] == 429
    assert shown.unlock(guesser).status == 429


def test_who_may_not_restore_may_not_unlock(shown: Shown) -> None:
    assert shown.unlock(shown.tenant.program("viewer")).status == 403
    assert shown.unlock(shown.server.site()).status in (403, 404)
    stranger = shown.server.tenant("elsewhere").admin
    assert shown.unlock(stranger).status == 404
    for path in ("files", "screenshot"):
        assert stranger.ask("GET", shown.path(path)).status == 404
        assert shown.tenant.program("viewer").ask("GET", shown.path(path)).status == 403


@pytest.mark.parametrize(
    ("what", "path", "status"),
    [("files", "/nowhere", 404), ("file", "/etc", 400), ("file", "/etc/hosts/below", 404), ("files", "/\0", 400)],
)
def test_paths_that_lead_nowhere(shown: Shown, what: str, path: str, status: int) -> None:
    admin = shown.tenant.admin
    told = {"X-Unlock": shown.unlock(admin).json()["unlock"]}
    assert admin.ask("GET", shown.path(what, path=path), headers=told).status == status


def test_an_unlocking_ends(shown: Shown) -> None:
    from headstart.server.call import Call
    from headstart.server.principal import Principal
    from headstart.server.roles import Role
    from tests.kit.shop import site_of

    site = site_of(shown.server)
    now = time.time()
    who = Principal("1" * 32, "somebody", Role.ADMIN, shown.tenant.id)
    made = unlocking.unlock(site, Call(who, now), "main", PASSWORD.decode())
    with site.database.read() as connection:
        from headstart.server import repositories

        place = repositories.get(connection, who, "main")
    assert unlocking.secrets_of(site, Call(who, now + 60), place, made.text).opens_content
    with pytest.raises(unlocking.NotUnlocked):
        unlocking.secrets_of(site, Call(who, now + unlocking.SECONDS + 1), place, made.text)


def test_few_snapshots_are_open_at_a_time_and_none_for_long(tmp_path: Path) -> None:
    image = ext4(tmp_path, "system", {"etc/hosts": b"here"})
    now = [0.0]
    shelf = Shelf(lambda: now[0])
    store = MemoryStore()
    with repository.create(store, PASSWORD, cost=QUICK) as repo:
        manifests = [stored.store_snapshot(repo, {"sda": image.read_bytes()}) for _ in range(3)]
        secrets = repo.secrets
    for each in manifests:
        now[0] += 1
        with shelf.contents(Key("me", "main", each.id), store, secrets) as contents:
            _, file = browsing.find(contents, "", "/etc/hosts")
            assert b"".join(browsing.content(file)) == b"here"
    assert len(shelf._opened) == browsing.MOST_OF_ONE
    now[0] += browsing.IDLE_SECONDS + 1
    shelf.sweep()
    assert not shelf._opened and not dict(store.list("leases/"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contents]:
    image = ext4(tmp_path_factory.mktemp("whole"), "system", {"srv/a": b"a", "srv/large": LARGE, "srv/z": b"z"})
    with opened({"sda": image}) as contents:
        yield contents


def _breaking(monkeypatch: pytest.MonkeyPatch, contents: Contents, error: errors.HeadstartError) -> Iterator[bytes]:
    """The tar of a folder, of which a file cannot be read on after its first MiB."""
    tree, top = browsing.find(contents, "", "/srv")
    content = type(top.system).content

    def broken(self: Any, details: Any, *span: int) -> Iterator[tuple[int, bytes]]:
        pieces = content(self, details, *span)
        yield next(pieces)
        if details.node.size == len(LARGE):
            raise error
        yield from pieces

    monkeypatch.setattr(type(top.system), "content", broken)
    return browsing.archive(tree, top, "srv")


def test_a_tar_breaks_off_where_the_store_does(monkeypatch: pytest.MonkeyPatch, whole: Contents) -> None:
    pieces, came = _breaking(monkeypatch, whole, errors.StoreFailed("It does not answer.")), bytearray()
    with pytest.raises(errors.StoreFailed, match="does not answer"):
        for piece in pieces:
            came += piece
    assert b"srv/large" in came


def test_what_a_tar_lacks_is_told_in_it(monkeypatch: pytest.MonkeyPatch, whole: Contents) -> None:
    data = b"".join(_breaking(monkeypatch, whole, errors.Damaged("A pack is missing.")))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        found = {name: stream.read() for name in names if (stream := archive.extractfile(name)) is not None}
    assert found["srv/a"] == b"a" and found["srv/z"] == b"z" and names[-1] == "srv.left-out"
    assert len(found["srv/large"]) == len(LARGE) and found["srv/large"][-1000:] == bytes(1000)
    assert re.fullmatch(rb"/srv/large: from byte \d+ on it is zeroes .*: A pack is missing\.\n", found["srv.left-out"])


def test_a_tar_that_nobody_reads_on_ends(whole: Contents) -> None:
    tree, top = browsing.find(whole, "", "/srv")
    pieces = browsing.archive(tree, top, "srv")
    next(pieces)
    pieces.close()
    assert not [each for each in threading.enumerate() if "_write" in each.name]
    assert b"left-out" not in b"".join(browsing.archive(tree, top, "srv"))


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
def test_a_download_that_is_given_up_is_closed_at_once_and_in_nobodys_way(spec: str) -> None:
    """As servers of either kind tell that whoever asked is gone: by a message, or where they are to send."""
    closing, let_go, closed = threading.Event(), threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def pieces() -> Generator[bytes]:
        try:
            while True:
                yield b"piece"
        finally:
            threads.append(threading.current_thread())
            closing.set()
            assert let_go.wait(10)

    async def give_up(started: bool) -> None:
        kept, came = contextlib.ExitStack(), asyncio.Event()
        kept.callback(closed.set)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" or not started:
                came.set()
                if spec == "2.4":
                    raise OSError
                await asyncio.sleep(0)

        async def receive() -> dict[str, str]:
            await came.wait()
            return {"type": "http.disconnect"}

        answer = sending.Sending(pieces(), kept, {}, "application/octet-stream")
        scope = {"type": "http", "asgi": {"spec_version": spec}}
        task = asyncio.ensure_future(answer(scope, receive, send))
        async with asyncio.timeout(5):
            while started and not closing.is_set():
                await asyncio.sleep(0.001)
        let_go.set()
        with contextlib.suppress(ClientDisconnect):
            await task
        assert closed.is_set()

    asyncio.run(give_up(started=True))
    assert threads and threads[0] is not threading.main_thread()
    closed.clear()
    asyncio.run(give_up(started=False))


# -- in a browser


chromium = browser.chromium


@browser.NEEDED
def test_browsed_and_downloaded_in_a_browser(shown: Shown, chromium: Browser) -> None:
    url = shown.server.identity.url
    context = chromium.new_context(ignore_https_errors=True, accept_downloads=True)
    page = context.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill("browsing-admin")
    page.get_by_label("Password").fill(LOGIN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="web", exact=True).first.click()
    page.locator(f"a[href='/snapshots/{shown.snapshot}']").first.click()
    page.get_by_role("link", name="Browse and download").click()
    page.get_by_label("Password of the repository").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("not the password")
    page.get_by_label("Password of the repository").fill(PASSWORD.decode())
    page.get_by_role("button", name="Open").click()
    page.get_by_role("link", name=re.compile("^srv")).click()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="large").click()
    assert Path(downloading.value.path()).read_bytes() == LARGE
    page.get_by_role("link", name=re.compile("^www")).click()
    # A name is text, and a page of the guest's is saved, not shown.
    with page.expect_download() as downloading:
        page.locator("a", has_text=HOSTILE).click()
    assert Path(downloading.value.path()).read_bytes() == FILES[f"srv/www/{HOSTILE}"]
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download this folder as tar").click()
    with tarfile.open(downloading.value.path()) as archive:
        assert f"www/{HOSTILE}" in archive.getnames()
    assert not dialogs
    # What a rehearsal saw: the unlocking was for all of this restore point.
    screen = page.locator("img.screen")
    page.goto(f"{url}/snapshots/{shown.snapshot}")
    expect(screen).to_have_js_property("naturalWidth", 64)
    context.clear_cookies(name="headstart-unlock")
    page.reload()
    expect(screen).to_have_count(0)
    page.get_by_role("link", name="unlocking").click()
    page.get_by_label("Password of the repository").fill(PASSWORD.decode())
    page.get_by_role("button", name="Open").click()
    expect(page).to_have_url(re.compile(f"/snapshots/{shown.snapshot}$"))
    expect(screen).to_have_js_property("naturalWidth", 64)
    assert not complaints
    # Another tenant's browser finds nothing there.
    shown.server.tenant("others")
    other = chromium.new_context(ignore_https_errors=True).new_page()
    other.goto(f"{url}/login")
    other.get_by_label("Name").fill("others-admin")
    other.get_by_label("Password").fill(LOGIN)
    other.get_by_role("button", name="Log in").click()
    refused = other.goto(f"{url}/snapshots/{shown.snapshot}/files")
    assert refused is not None and refused.status == 404
