"""The daemon's socket: what is asked arrives, what is answered comes back, and errors keep their kind."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.host import control
from headstart.host.control import Tell


def answer(request: Mapping[str, Any], tell: Tell) -> Any:
    match request["do"]:
        case "echo":
            return request["what"]
        case "work":
            for done in (1, 2):
                tell({"progress": {"what": "copying", "done": done, "total": 2}})
            return "worked"
        case "fail":
            error = errors.NotFound("There is no VM 'x' here.", vm="x")
            error.add_note("Look again.")
            raise error
    raise AssertionError(request)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Deep: an address of a socket holds 107 bytes."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    with control.Server(control.address(folder), answer):
        yield folder


@pytest.mark.parametrize("what", ["plain", {"nested": [1, 2.5, None]}, 'ä\n"quoted"', "x" * 100_000])
def test_what_is_asked_is_answered(state: Path, what: Any) -> None:
    assert control.ask(state, {"do": "echo", "what": what}) == what


def test_progress_comes_before_the_result(state: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert control.ask(state, {"do": "work"}, lambda *told: seen.append(told)) == "worked"
    assert seen == [("copying", 1, 2), ("copying", 2, 2)]


def test_an_error_keeps_kind_message_and_facts(state: Path) -> None:
    with pytest.raises(errors.NotFound, match=r"There is no VM 'x' here\. Look again\.") as caught:
        control.ask(state, {"do": "fail"})
    assert caught.value.facts == {"vm": "x"}


GARBAGE = [b"\n", b"{", b"[1]\n", b"\xff\xfe\n", b"GET / HTTP/1.1\r\n\r\n", b"[" * 9000 + b"\n"]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:4]))
def test_garbage_is_refused_and_others_are_served(state: Path, garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        monkeypatch.chdir(state)
        link.connect(control.NAME)
        link.sendall(garbage)
        link.shutdown(socket.SHUT_WR)
        assert b"This is no request" in link.makefile("rb").read()
    assert control.ask(state, {"do": "echo", "what": 1}) == 1


def test_who_leaves_in_the_middle_harms_nobody(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        monkeypatch.chdir(state)
        link.connect(control.NAME)
        link.sendall(b'{"do": "work"}\n{"do": "ec')
    assert control.ask(state, {"do": "echo", "what": 1}) == 1


def test_only_its_owner_may_ask(tmp_path: Path) -> None:
    """Other threads make files meanwhile: the umask is theirs as well."""
    before = os.umask(0)
    try:
        with (
            mock.patch.object(os, "umask", side_effect=AssertionError("not for a moment")),
            control.Server(control.address(tmp_path), answer),
        ):
            assert stat.S_IMODE(control.address(tmp_path).stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(control.Absent, match="headstart run"):
        control.ask(tmp_path, {"do": "echo"})
    control.address(tmp_path).touch()
    with pytest.raises(control.Absent):
        control.ask(tmp_path, {"do": "echo"})


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)
    left.bind(control.NAME)
    left.close()
    with control.Server(control.address(tmp_path), answer):
        assert control.ask(tmp_path, {"do": "echo", "what": 2}) == 2
    assert not control.address(tmp_path).exists()
