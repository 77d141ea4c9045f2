"""Two daemons on one state, as processes: one serves, the other says who does."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import repository
from headstart.host import control
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.kit.cli import Cli

SECONDS = 20.0


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path, HEADSTART_CONFIG=str(tmp_path / "headstart.toml"))
    (tmp_path / "headstart.toml").write_text('[policy.default.schedule]\ncalendar = "02:30"\n')
    repository.create(LocalStore(made.repository), stores.PASSWORD, cost=stores.QUICK).close()
    return made


@contextlib.contextmanager
def serving(cli: Cli) -> Iterator[subprocess.Popen[str]]:
    process = cli.start("run")
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(cli):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(cli: Cli) -> bool:
    try:
        control.ask(cli.state, {"do": "status"})
    except (control.Absent, OSError):
        return False
    return True


def test_the_second_says_who_serves_and_a_dead_one_is_followed(cli: Cli) -> None:
    with serving(cli) as first:
        said = cli.run("run", expect=11).error["error"]["message"]
        assert f"(process {first.pid}) serves {cli.state} (run, since 2" in said
        assert f"on host {socket.gethostname()}" in said
        first.send_signal(signal.SIGSTOP)
        assert f"'kill -CONT {first.pid}'" in cli.run("run", expect=11).error["error"]["message"]
        first.kill()
        first.wait()
        with serving(cli) as second:
            assert answers(cli) and second.poll() is None
