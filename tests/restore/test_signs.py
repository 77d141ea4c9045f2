"""What on a console shows that a VM has started, and what does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.restore.rehearsing.signs import Awaited, Signs


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
