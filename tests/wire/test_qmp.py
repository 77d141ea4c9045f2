"""The QMP client against QEMU, and against what is not QEMU."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.wire.qmp import CommandFailed, Qmp
from tests.wire import scripted

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\n'


@pytest.fixture(scope="module")
def monitor() -> Iterator[tuple[Path, int]]:
    """A QEMU without a guest: its monitor and its process id."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        path = Path(folder, "qmp")
        command = ["qemu-system-x86_64", "-M", "none", "-S", "-display", "none", "-nodefaults"]
        process = subprocess.Popen([*command, "-qmp", f"unix:{path},server=on,wait=off"])
        try:
            deadline = time.monotonic() + 20
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            yield path, process.pid
        finally:
            process.kill()
            process.wait()


def test_commands_events_and_errors(monitor: tuple[Path, int]) -> None:
    with Qmp(monitor[0]) as qmp:
        assert qmp.peer_pid == monitor[1]
        assert qmp.execute("query-status")["status"] == "prelaunch"
        with pytest.raises(CommandFailed) as caught:
            qmp.execute("blockdev-del", node_name="missing")
        assert (caught.value.command, caught.value.kind) == ("blockdev-del", "GenericError")
        assert "missing" in caught.value.text
        mark = qmp.mark
        assert qmp.wait_event(lambda event: True, 0.01, mark) is None
        qmp.execute("cont")
        assert qmp.wait_event(lambda event: event["event"] == "RESUME", 5, mark) is not None
        qmp.execute("stop")
        assert [event["event"] for event in qmp.events_since(mark)] == ["RESUME", "STOP"]


def test_one_that_is_closed_stays_so(monitor: tuple[Path, int]) -> None:
    with Qmp(monitor[0]) as qmp:
        qmp.close()
        with pytest.raises(errors.Unreachable, match="is closed"):
            qmp.execute("query-status")


def test_a_batch_runs_to_its_end_in_order(monitor: tuple[Path, int]) -> None:
    with Qmp(monitor[0]) as qmp:
        nodes = [("blockdev-add", {"driver": "null-co", "node-name": name}) for name in ("a", "a", "b")]
        added, twice, other, found = qmp.batch([*nodes, ("query-named-block-nodes", {"flat": True})])
        assert (added, other) == ({}, {})
        assert isinstance(twice, CommandFailed)
        assert {node["node-name"] for node in found} == {"a", "b"}
        for name in ("a", "b"):
            qmp.execute("blockdev-del", node_name=name)


def test_a_second_client_is_told_that_the_monitor_is_busy(monitor: tuple[Path, int]) -> None:
    with Qmp(monitor[0]):
        began = time.monotonic()
        with pytest.raises(errors.Unreachable, match=r"one client at a\s+time.*add another -qmp"):
            Qmp(monitor[0])
        assert time.monotonic() - began < 7
    with Qmp(monitor[0]) as qmp:
        assert qmp.execute("query-status")


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable, match=r"There is no QMP socket at .*server=on,wait=off"):
        Qmp(tmp_path / "missing")
    with pytest.raises(errors.Unreachable, match=r"There is no QMP socket|Nobody listens"):
        Qmp(tmp_path / ("long" * 40))


def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(errors.Unreachable, match=r"Nobody listens on the QMP socket .*is the VM running"):
        Qmp(path)
    path.unlink()
    path.touch()
    with pytest.raises(errors.Unreachable, match="Nobody listens"):
        Qmp(path)


def chatter(client: socket.socket) -> None:
    client.sendall(b"220 mail.example.org ESMTP\r\n" * 3)
    scripted.silence(client)


def endless(client: socket.socket) -> None:
    while True:
        client.sendall(b"x" * 65536)


def half(client: socket.socket) -> None:
    """Greets, and leaves."""
    client.sendall(GREETING)


def mute(client: socket.socket) -> None:
    """Greets, and never answers."""
    client.sendall(GREETING)
    scripted.silence(client)


@pytest.mark.parametrize("script", [scripted.silence, chatter, endless, half, mute, lambda client: None])
def test_what_is_not_qmp_is_given_up(script: scripted.Script) -> None:
    with scripted.listening(script) as path:
        began = time.monotonic()
        with pytest.raises(errors.Unreachable, match=r"does not speak QMP|does not greet"):
            Qmp(path, greeting_seconds=0.5)
        assert time.monotonic() - began < 4


def test_the_vm_goes_away_during_a_command() -> None:
    def script(client: socket.socket) -> None:
        client.sendall(GREETING)
        client.recv(65536)
        client.sendall(b'{"return": {}, "id": "__qmp#00000"}\n')
        client.recv(65536)

    with scripted.listening(script) as path, Qmp(path) as qmp:
        with pytest.raises(errors.Unreachable, match=r"ended during 'query-status'"):
            qmp.execute("query-status")
        with pytest.raises(errors.Unreachable):
            qmp.execute("query-status")
