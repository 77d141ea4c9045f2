"""Debian's Chromium, and what a page says in its console."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, sync_playwright

CHROMIUM = "/usr/bin/chromium"
NEEDED = pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason="needs Debian's chromium")


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def complains(message: ConsoleMessage) -> bool:
    """A status that is no success is told there, too: pages are allowed to be refused."""
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as running:
        yield running
