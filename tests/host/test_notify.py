"""Word for systemd, over a socket as systemd has it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from headstart.host.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"@headstart-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if abstract else name)
        notifier = Notifier({"NOTIFY_SOCKET": name})
        notifier.tell(READY=1, STATUS="2 VMs protected")
        notifier.reloading()
        assert listening.recv(1000) == b"READY=1\nSTATUS=2 VMs protected"
        first, second = listening.recv(1000).decode().split("\n")
        assert first == "RELOADING=1" and second.startswith("MONOTONIC_USEC=")


def test_nobody_listens(tmp_path: Path) -> None:
    Notifier({}).tell(READY=1)
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog(environment: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environment).watchdog_seconds == seconds
