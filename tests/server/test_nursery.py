"""Servers that are forked from a process that has loaded them are as those that are started from nothing."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from headstart import __version__
from tests.kit import nursery
from tests.kit.server import Person, Server


@pytest.mark.parametrize("anew", [False, True])
def test_it_begins_serves_and_ends(anew: bool, tmp_path: Path) -> None:
    with Server(tmp_path, anew=anew) as server:
        assert Person(server.identity).get("/v1/health/live")["version"] == __version__
        process = server.process
        assert process is not None and process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        command = Path(f"/proc/{process.pid}/environ")
        assert process.pid > 0 and command.exists()
    assert process.poll() == 130 and not command.exists()


def test_how_it_ended_is_told(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        wrong = nursery.start(["server", "--no-such-option"], {}, log)
        assert (wrong.wait(20), wrong.stdout.read()) == (2, "")
        version = nursery.start(["--version"], {}, log)
        assert __version__ in version.stdout.read() and version.wait(20) == 0
    assert "--no-such-option" in (tmp_path / "log").read_text()
    for number in (signal.SIGKILL, signal.SIGTERM):
        server = Server(tmp_path / number.name)
        with server:
            assert server.process is not None
            server.process.send_signal(number)
            assert server.process.wait(20) == {signal.SIGKILL: -9, signal.SIGTERM: 130}[number]


def test_it_has_the_environment_that_it_was_given(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        given = {"HEADSTART_SERVER_RATE_KNOWN": "many"}
        child = nursery.start(["--json", "server", "--data", str(tmp_path / "data")], given, log)
        assert child.wait(20) == 2
    assert "HEADSTART_SERVER_RATE_KNOWN" in (tmp_path / "log").read_text()
