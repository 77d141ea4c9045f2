"""The pages in a real browser, Debian's Chromium, as somebody uses them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from headstart import units
from tests.kit import browser, machine
from tests.kit.machine import Machine
from tests.kit.server import PASSWORD, SITE, SITE_PASSWORD, Server, Tenant

pytestmark = browser.NEEDED

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)> \U0001f680 \u202eevil"
ADMIN = "browsed-admin"
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 900}

Open = Callable[..., Page]


@dataclass(frozen=True, slots=True)
class Fleet:
    tenant: Tenant
    machine: Machine
    vms: dict[str, str]

    def say(self, **views: Any) -> None:
        """Of some VMs; the others are as ever."""
        names = (name for name in self.vms if name not in views)
        self.machine.tell({**{name: machine.view() for name in names}, **views})


@pytest.fixture(scope="module")
def fleet(server: Server) -> Fleet:
    tenant = server.tenant("browsed")
    tenant.repository()
    tenant.admin.put("/v1/policies/nightly", {"text": '[schedule]\ncalendar = "02:00"\ntimezone = "UTC"\n'})
    tenant.admin.put("/v1/assignments?pattern=web*", {"policy": "nightly"})
    host = Machine(tenant.host("rack"))
    names = ("web", "database", HOSTILE, "a-name-without-any-place-to-break-" * 6)
    host.tell({name: machine.view() for name in names} | {"unprotected": None})
    now = time.time()
    for day in range(3):
        moment = now - day * 86400 - 600
        host.ran("web", "backup", moment, machine.backup("web", moment, 3 << 30, 40 << 20, 0.5))
    host.ran("database", "backup", now - 60, {"error": "No room in the scratch directory."})
    minute = {"load": 0.2, "latency": 0.002, "state": "idle", "copied": 1 << 20, "remaining": 1 << 28, "deferred": 0}
    begin = int(now) // 60 * 60 - 7200
    host.measured("web", [{**minute, "moment": begin + 60 * each} for each in range(120)])
    return Fleet(tenant, host, {vm["name"]: vm["id"] for vm in tenant.admin.get("/v1/vms")})


chromium = browser.chromium


@pytest.fixture
def open_(server: Server, chromium: Browser) -> Iterator[Open]:
    """A page of a browser of its own. At the end: nothing was asked from elsewhere, and nothing was refused by the
    policy of contents, nor failed otherwise."""
    contexts, foreign, complaints = [], [], []

    def asked(request: Request) -> None:
        if not request.url.startswith((f"{server.identity.url}/", "data:")):
            foreign.append(request.url)

    def said(message: ConsoleMessage) -> None:
        if browser.complains(message):
            complaints.append(message.text)

    def opened(theme: str = "light", size: dict[str, int] = WIDE, **options: Any) -> Page:
        context = chromium.new_context(
            base_url=server.identity.url,
            ignore_https_errors=True,
            color_scheme=theme,  # type: ignore[arg-type]
            viewport=size,  # type: ignore[arg-type]
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", asked)
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not foreign and not complaints


def log_in(page: Page, name: str = ADMIN, password: str = PASSWORD, path: str = "/") -> None:
    page.goto(path)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    # On a phone it is folded up, and has no role then.
    expect(page.locator("#menu")).to_be_attached()


def test_log_in_and_out(open_: Open, fleet: Fleet) -> None:
    page = open_()
    page.goto("/")
    expect(page).to_have_url(re.compile("/login$"))
    page.get_by_label("Name").fill(ADMIN)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not right")
    assert page.get_by_label("Name").input_value() == ADMIN
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_contain_text("logged out")
    page.goto("/")
    expect(page).to_have_url(re.compile("/login$"))


def test_the_overview_tells_what_is_protected_and_why_not(open_: Open, fleet: Fleet) -> None:
    fleet.say(unprotected=None)
    page = open_()
    log_in(page)
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=re.compile("^web")))
    expect(row).to_contain_text("Protected")
    row = page.get_by_role("row").filter(has_text="database")
    expect(row).to_contain_text("Backup failed")
    expect(row).to_contain_text("No room in the scratch directory.")
    expect(page.get_by_role("row").filter(has_text="unprotected")).to_contain_text("No policy names it.")
    page.get_by_role("searchbox").fill("datab")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page).to_have_url(re.compile("q=datab"))
    page.get_by_role("link", name=re.compile("Protected$")).first.click()
    expect(page).to_have_url(re.compile("show=good"))


def test_a_backup_is_seen_moving(open_: Open, fleet: Fleet) -> None:
    def say(done: int) -> None:
        doing = machine.doing("backup", done * units.MIB, 400 * units.MIB, "residue")
        fleet.say(web=machine.view(state="backup", reason="residue", doing=doing))

    say(40)
    page = open_()
    log_in(page, path=f"/vms/{fleet.vms['web']}")
    expect(page.locator("#percent")).to_have_text("10%")
    page.evaluate("window.same = true")
    for done, shown in ((200, "50%"), (380, "95%")):
        say(done)
        expect(page.locator("#percent")).to_have_text(shown, timeout=15_000)
    fleet.say(web=machine.view())
    expect(page.locator("#doing")).to_have_count(0, timeout=15_000)
    assert page.evaluate("window.same"), "without loading the page again"


def test_a_page_of_a_vm_has_its_picture_and_its_points(open_: Open, fleet: Fleet) -> None:
    page = open_()
    log_in(page, path=f"/vms/{fleet.vms['web']}")
    image = page.locator("picture img")
    expect(image).to_have_js_property("naturalWidth", 1040)
    expect(image).to_have_attribute("alt", re.compile("web"))
    points = page.get_by_role("region", name="Restore points and windows").get_by_role("row")
    expect(points).to_have_count(4)
    expect(points.nth(1)).to_contain_text("40.0 MiB of 3.0 GiB")
    page.get_by_role("button", name="Back up now").click()
    expect(page.get_by_role("status")).to_contain_text("Ordered")
    expect(page.get_by_role("list", name="Orders")).to_contain_text("waits for the host")


def test_with_the_keyboard_alone(open_: Open, fleet: Fleet) -> None:
    page = open_()
    page.goto("/")
    press = page.keyboard
    # The name has the focus.
    press.type(ADMIN)
    press.press("Tab")
    press.type(PASSWORD)
    press.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    press.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    expect(page.locator(":focus")).to_be_in_viewport()
    press.press("Enter")
    press.press("/")
    press.type("web")
    expect(page.get_by_role("row")).to_have_count(2)
    for _ in range(30):
        press.press("Tab")
        if page.evaluate("document.activeElement.id").startswith("vm-"):
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "it is seen where the focus is"
    press.press("Enter")
    expect(page.get_by_role("heading", name="web", level=1)).to_be_visible()


def test_a_phone_scrolls_one_way(open_: Open, fleet: Fleet) -> None:
    page = open_(size=NARROW)
    log_in(page)
    longest = max(fleet.vms, key=len)
    paths = ("/", "/hosts", "/policies", "/policies/nightly", "/policies/nightly/simulate", "/repositories", "/jobs")
    vms = (f"/vms/{fleet.vms['web']}", f"/vms/{fleet.vms[longest]}")
    for path in (*paths, *vms, "/repositories/main/structure", "/users", "/tokens", "/audit", "/settings"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], path
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("link", name="Hosts").click()
    expect(page.get_by_role("heading", name="Hosts", level=1)).to_be_visible()


def test_the_sites_pages_on_a_phone(open_: Open, fleet: Fleet) -> None:
    page = open_(size=NARROW)
    log_in(page, SITE, SITE_PASSWORD)
    for path in ("/tenants", "/users", "/jobs", "/audit", "/settings"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], path


def test_dark_and_light(open_: Open, fleet: Fleet) -> None:
    def ground(page: Page) -> int:
        """How bright it is."""
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    dark, light = open_("dark"), open_("light")
    for page in (dark, light):
        log_in(page, path=f"/vms/{fleet.vms['web']}")
        expect(page.locator("picture img")).to_have_js_property("naturalWidth", 1040)
    assert ground(dark) < 150 < 600 < ground(light)
    assert "theme=dark" in dark.evaluate("document.querySelector('picture img').currentSrc")
    assert "theme=dark" not in light.evaluate("document.querySelector('picture img').currentSrc")
    light.get_by_role("button", name="Light or dark").click()
    assert ground(light) < 150
    light.reload()
    assert ground(light) < 150, "it is kept"
    expect(light.locator("picture img")).to_have_js_property("naturalWidth", 1040)
    assert "theme=dark" in light.evaluate("document.querySelector('picture img').currentSrc")


def test_names_are_text(open_: Open, fleet: Fleet) -> None:
    page = open_()
    log_in(page)
    expect(page.get_by_role("link", name="<script>document.title")).to_be_visible()
    page.get_by_role("link", name="<script>document.title").click()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("<img src=x onerror=alert(1)> \U0001f680")
    assert "\u202e" not in heading.inner_text(), "nothing turns what follows"
    assert "owned" not in page.title().removeprefix("<script>document.title='owned'")
    assert page.locator("main img[src='x'], main script").count() == 0


def test_what_is_others_is_not_found(open_: Open, server: Server, fleet: Fleet) -> None:
    server.tenant("curious")
    page = open_()
    log_in(page, "curious-admin")
    told = []
    for vm in (fleet.vms["web"], "0" * 32):
        answer = page.goto(f"/vms/{vm}")
        assert answer is not None and answer.status == 404
        told.append(page.inner_text("main").replace(vm, ""))
    assert told[0] == told[1]
    page.goto("/")
    expect(page.get_by_text("No host has joined yet")).to_be_visible()


def test_the_pages_work_without_scripts(open_: Open, fleet: Fleet) -> None:
    page = open_(java_script_enabled=False)
    log_in(page)
    page.get_by_role("searchbox").fill("web")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="web", exact=True).click()
    expect(page.get_by_role("heading", name="web", level=1)).to_be_visible()


def test_a_policy_is_written_and_tried(open_: Open, fleet: Fleet) -> None:
    page = open_()
    log_in(page, path="/policies/nightly")
    page.get_by_label("What the policy says").fill('[schedule]\ncalender = "02:00"\n')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text('did you mean "calendar"')
    page.get_by_label("What the policy says").fill('[schedule]\ncalendar = "04:00"\ntimezone = "UTC"\n')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    page.goto("/policies/nightly/simulate")
    page.get_by_label("To the VM").select_option(label="web")
    page.get_by_role("button", name="Play the week").click()
    expect(page.get_by_role("row").filter(has_text="This policy")).to_contain_text("computed")
    expect(page.get_by_text("which blocks, and when between the rounds, is not")).to_be_visible()


def test_a_restore_point_is_booted_and_stopped(open_: Open, fleet: Fleet) -> None:
    """The host fetches the order, says how the VM is reached, and hears that it is to end."""
    point = next(each["id"] for each in fleet.tenant.admin.get("/v1/snapshots") if each["vm"] == "web")
    page = open_()
    page.on("dialog", lambda dialog: dialog.accept())
    log_in(page, path=f"/snapshots/{point}")
    expect(page.get_by_text("No host offers to boot by order")).to_be_visible()
    fleet.machine.state = {"boots": True}
    fleet.say()
    page.reload()
    page.get_by_label("For so many hours at most").fill("2")
    page.get_by_role("button", name="Boot").click()
    given = page.get_by_role("list", name="Orders")
    expect(given).to_contain_text("waits for the host")
    [offered] = [each for each in fleet.machine.tell({})["offered"] if each["kind"] == "boot"]
    assert offered["arguments"]["hours"] == 2
    hand = {offered["id"]: {"state": "taken", "result": {}}}
    fleet.machine.tell({}, hand)
    reach = {"screen": "/run/headstart/vm/ordered-web/vnc", "consoles": ["/run/console"], "monitor": HOSTILE}
    progress = {"what": "runs", "until": time.time() + 7200, "reach": reach, "notes": ["a card was left out"]}
    hand[offered["id"]]["progress"] = progress
    fleet.machine.tell({}, hand)
    for text in ("/run/headstart/vm/ordered-web/vnc", "/run/console", "<script>document", "a card was left out"):
        expect(given).to_contain_text(text)
    page.get_by_role("button", name="Stop").click()
    expect(given).to_contain_text("is being stopped")
    assert fleet.machine.tell({}, hand)["orders"][offered["id"]] == "stopping"
    over = {"state": "done", "result": {"ended": "It was stopped by order."}}
    fleet.machine.tell({}, {offered["id"]: over})
    expect(given).to_contain_text("It was stopped by order.")
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    # Whatever a host says, in whatever form, the page stands.
    page.get_by_role("button", name="Boot").click()
    [offered] = [each for each in fleet.machine.tell({})["offered"] if each["kind"] == "boot"]
    wrong = {"until": "never", "reach": [1], "notes": {"a": 1}, "what": {"x": HOSTILE}}
    fleet.machine.tell({}, {offered["id"]: {"state": "taken", "result": {}, "progress": wrong}})
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    fleet.machine.tell({}, {offered["id"]: {"state": "failed", "result": {"error": "No room."}}})
    expect(given).to_contain_text("No room.")
    fleet.machine.state = {}
    fleet.say()
