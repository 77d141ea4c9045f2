"""What on a console shows that a VM has started, and what does not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.restore.rehearsing import signs
from headstart.restore.rehearsing.signs import Awaited, Signs

#: Each word may begin a match that two ``.*`` look for to the end of the line.
ENDLESS = "Started PostgreSQL " * 12_000


def looking(folder: Path, pattern: str, text: str) -> Signs:
    (folder / "console").write_text(text, newline="")
    stage: Any = SimpleNamespace(has_agent=False, consoles=(folder / "console",))
    return Signs(stage, Awaited.PATTERN, pattern)


def seen(folder: Path, *written: str) -> bool:
    """On one console each."""
    consoles = tuple(folder / f"console{number}" for number in range(len(written)))
    for path, text in zip(consoles, written, strict=True):
        path.write_text(text, newline="")
    stage: Any = SimpleNamespace(has_agent=False, consoles=consoles)
    return Signs(stage, Awaited.CONSOLE, "").seen()


@pytest.mark.parametrize(
    "text",
    [
        "Debian GNU/Linux 12 guest ttyS0\r\n\r\nguest login: ",
        "login: ",
        "FreeBSD/amd64 (guest) (ttyu0)\r\n\r\nlogin: ",
        "\x1b[H\x1b[2Jlogin: ",
        "\x1b[?25h\x1b[0mlogin: ",
        "\x1b[32mguest\x1b[0m login: [  OK  ] Reached target",
    ],
)
def test_a_prompt_for_a_login_is_a_sign_of_life(tmp_path: Path, text: str) -> None:
    assert seen(tmp_path, text)
    assert seen(tmp_path, "booting\r\n", text)


@pytest.mark.parametrize(
    "text",
    [
        "sulogin: root account is locked, starting shell\r\nroot@guest:~# ",
        "\r\nsulogin: cannot open password database!\r\n",
        "pam_nologin: the system is going down\r\n",
        'You are in emergency mode. After logging in, type "journalctl -xb"',
        "systemd-logind[312]: New seat seat0.\r\nemergency-login: no",
    ],
)
def test_an_emergency_shell_asks_for_no_login(tmp_path: Path, text: str) -> None:
    assert not seen(tmp_path, text)


@pytest.mark.parametrize(
    ("pattern", "text", "there"),
    [
        ("^Started .*PostgreSQL.* ready$", ENDLESS + "\r\nStarted PostgreSQL 15, ready\r\n$ ", True),
        ("Started .*PostgreSQL.* ready$", ENDLESS, False),
        ("Started.PostgreSQL", "Started\nPostgreSQL", False),
        *(("here", "-" * before + "here", True) for before in (498, 748)),
    ],
)
def test_a_pattern_is_looked_for_line_by_line_and_quickly(tmp_path: Path, pattern: str, text: str, there: bool) -> None:
    began = time.monotonic()
    looked = looking(tmp_path, pattern, text)
    assert (looked.seen(), looked.given_up) == (there, False)
    assert time.monotonic() - began < 4


def test_a_search_without_an_end_is_given_up_and_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "_SEARCH_SECONDS", 1.0)
    looked = looking(tmp_path, "(a+)+$", "a" * 50 + "b")
    ticks = 0
    with ThreadPoolExecutor(1) as threads:
        searched = threads.submit(looked.seen)
        while not searched.done():
            time.sleep(0.02)
            ticks += 1
    assert not searched.result() and looked.given_up and ticks > 10
    monkeypatch.setattr(signs, "_SEARCH_SECONDS", 0.1)
    assert not looked.seen() and not looked.seen() and looked.given_up
    began = time.monotonic()
    assert not looked.seen() and time.monotonic() - began < 0.05  # it has written nothing since
