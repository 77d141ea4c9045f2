"""What a browser shows of a server, as pictures: Debian's Chromium, in light and dark, wide and narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from tests.kit.server import PASSWORD, Server, Tenant

CHROMIUM = "/usr/bin/chromium"
_WIDE, _NARROW = (1280, 900), (390, 844)
Colours = Literal["light", "dark"]


def take(server: Server, ours: Tenant, theirs: Tenant, folder: Path) -> list[Path]:
    """Of the overview and a VM of ``ours``, and of what comes of asking for one of ``theirs``."""
    vm, foreign = (tenant.admin.get("/v1/vms")[0]["id"] for tenant in (ours, theirs))
    point = ours.admin.get("/v1/snapshots")[0]["id"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        wide = _log_in(browser, server, ours, "light", _WIDE)
        found = [
            _shot(wide, server, "/", folder / "overview.png"),
            _shot(wide, server, f"/vms/{vm}", folder / "vm.png"),
            _shot(wide, server, f"/snapshots/{point}", folder / "restore-point.png"),
        ]
        refused = wide.goto(f"{server.identity.url}/vms/{foreign}")
        if refused is None or refused.status != 404:
            raise SystemExit("another tenant's VM was shown")
        dark = _log_in(browser, server, ours, "dark", _WIDE)
        found.append(_shot(dark, server, f"/vms/{vm}", folder / "vm-dark.png"))
        narrow = _log_in(browser, server, ours, "light", _NARROW)
        found.append(_shot(narrow, server, "/", folder / "overview-phone.png"))
        browser.close()
    return found


def _log_in(browser: Browser, server: Server, tenant: Tenant, colours: Colours, size: tuple[int, int]) -> Page:
    context = browser.new_context(
        ignore_https_errors=True, color_scheme=colours, viewport={"width": size[0], "height": size[1]}
    )
    page = context.new_page()
    page.goto(f"{server.identity.url}/login")
    page.get_by_label("Name").fill(f"{tenant.name}-admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{server.identity.url}/")
    return page


def _shot(page: Page, server: Server, path: str, target: Path) -> Path:
    page.goto(server.identity.url + path)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=target, full_page=True)
    return target
