"""The guest agent's client against agents that do not behave. The guest is not trusted."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from headstart import errors
from headstart.wire.qga import LINE_LIMIT, Qga
from tests.wire import scripted
from tests.wire.scripted import answer, mute, requests, synchronise


def obedient(client: socket.socket) -> None:
    for request in requests(client):
        if request["execute"] == "guest-sync-delimited":
            synchronise(client, request)
        else:
            answer(client, request["execute"])


def test_commands_are_answered() -> None:
    with scripted.listening(obedient) as path, Qga(path) as qga:
        assert qga.execute("guest-fsfreeze-status", 1) == "guest-fsfreeze-status"
        assert qga.execute("guest-info", 1) == "guest-info"


def test_arguments_are_sent() -> None:
    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)
            else:
                answer(client, request.get("arguments", "none"))

    with scripted.listening(script) as path, Qga(path) as qga:
        assert qga.execute("guest-exec-status", 1, {"pid": 7}) == {"pid": 7}
        assert qga.execute("guest-info", 1) == "none"


def test_what_an_earlier_client_left_is_skipped() -> None:
    def script(client: socket.socket) -> None:
        client.sendall(b'lf a line"}\n{"return": 7}\n\xff{"return": 12}\n')
        obedient(client)

    with scripted.listening(script) as path, Qga(path) as qga:
        assert qga.execute("guest-info", 1) == "guest-info"


def endless(client: socket.socket) -> None:
    for _ in range(2 * LINE_LIMIT // 65536):
        client.sendall(b"x" * 65536)


def garbage(client: socket.socket) -> None:
    client.recv(65536)
    client.sendall(b"\x00\xfe[]\n\xff17\n\xff{\n" * 100 + b"\xff" + b"[" * 100_000 + b"\n")
    scripted.silence(client)


def crumbs(client: socket.socket) -> None:
    for request in requests(client):
        if request["execute"] == "guest-sync-delimited":
            synchronise(client, request)
        else:
            while True:
                client.sendall(b" ")
                time.sleep(0.01)


@pytest.mark.parametrize("script", [mute, crumbs])
def test_who_waits_for_a_long_command_is_asked_whether_it_still_wants_to(script: scripted.Script) -> None:
    asked = []

    def attend() -> None:
        asked.append(time.monotonic())
        if len(asked) == 2:
            raise errors.Interrupted("enough")

    with scripted.listening(script) as path, Qga(path) as qga:
        began = time.monotonic()
        with pytest.raises(errors.Interrupted):
            qga.execute("guest-fstrim", 60, attend=attend)
        assert time.monotonic() - began < 5
    with scripted.listening(script) as path, Qga(path) as qga, pytest.raises(errors.Unreachable, match="in time"):
        qga.execute("guest-fstrim", 0.1, attend=attend)


def test_through_libvirt_it_is_waited_for_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    libvirt_qemu = pytest.importorskip("libvirt_qemu")
    from headstart.wire import libvirt

    over, asked = threading.Event(), []

    def command(domain: str, order: str, seconds: int, flags: int) -> str:
        assert (domain, seconds) == ("domain", 60)
        over.wait(30)
        return '{"return": "trimmed"}'

    def attend() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise errors.Interrupted("enough")
        if len(asked) == 3:
            over.set()

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", command)
    agent = libvirt.DomainQga(mock.Mock(order=lambda question: question("domain")))
    with pytest.raises(errors.Interrupted):
        agent.execute("guest-fstrim", 60, attend=attend)
    assert agent.execute("guest-fstrim", 60, attend=attend) == "trimmed"
    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", mock.Mock(side_effect=libvirt.Failed("no", 1)))
    with pytest.raises(errors.Unreachable, match="guest-fstrim"):
        agent.execute("guest-fstrim", 60, attend=attend)


@pytest.mark.parametrize("script", [scripted.silence, garbage, endless, lambda client: None])
def test_an_agent_that_does_not_answer_is_given_up(script: scripted.Script) -> None:
    with scripted.listening(script) as path:
        began = time.monotonic()
        with pytest.raises(errors.Unreachable, match="Is qemu-guest-agent installed"):
            Qga(path, sync_seconds=0.3)
        assert time.monotonic() - began < 3


def test_a_command_that_is_not_answered_is_given_up() -> None:
    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)

    with scripted.listening(script) as path, Qga(path) as qga, pytest.raises(errors.Unreachable):
        qga.execute("guest-fsfreeze-freeze", 0.2)


def test_an_error_is_told_and_cut() -> None:
    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)
            else:
                client.sendall(json.dumps({"error": {"desc": "\x1b[31m" + "no" * 5000}}).encode() + b"\n")

    with scripted.listening(script) as path, Qga(path) as qga:
        with pytest.raises(errors.Unreachable, match=r"refused 'guest-info'.*nono") as caught:
            qga.execute("guest-info", 1)
        assert len(str(caught.value)) < 300
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("error", ["text", None, ["list"]])
def test_an_error_of_another_form_is_an_error(error: object) -> None:
    def script(client: socket.socket) -> None:
        for request in requests(client):
            if request["execute"] == "guest-sync-delimited":
                synchronise(client, request)
            else:
                client.sendall(json.dumps({"error": error}).encode() + b"\n")

    with scripted.listening(script) as path, Qga(path) as qga, pytest.raises(errors.Unreachable):
        qga.execute("guest-info", 1)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(errors.Unreachable):
        Qga(tmp_path / "missing")
