"""The guard undoes what we leave behind, at whichever moment we end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart import errors
from headstart.hypervisor import guard_process
from headstart.hypervisor.guard import Guard, Order

THAW = b"thaw\n"


@dataclass(frozen=True, slots=True)
class Stage:
    """A guard, and the other ends of what it inherited."""

    guard: Guard
    monitor: socket.socket
    agent: socket.socket
    note: Path

    @property
    def pid(self) -> int:
        return self.guard._process.pid

    def give(self, order: bytes) -> None:
        """And wait for its answer."""
        self.guard._tell(order)

    def told(self, end: socket.socket) -> bytes:
        """What the guard wrote there by its end, which the readers of answers would otherwise wait for."""
        end.settimeout(20)
        found = end.recv(1000)
        end.close()
        return found


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    pairs = socket.socketpair(), socket.socketpair()
    (monitor, qmp), (agent, freezer) = pairs
    note = tmp_path / "note"
    guard = Guard(qmp.fileno(), Order(freezer.fileno(), THAW), note)
    for each in (qmp, freezer):
        each.close()
    yield Stage(guard, monitor, agent, note)
    guard.close()
    for each in (monitor, agent):
        each.close()


def test_what_is_undone_in_time_is_left_alone(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    with stage.guard.freezing(), stage.guard.pausing():
        assert stage.note.exists()
    stage.guard.close()
    assert stage.monitor.recv(1) == stage.agent.recv(1) == b""
    assert not stage.note.exists() and capfd.readouterr().err == ""


def test_who_dies_leaves_nothing_stopped_or_frozen(stage: Stage) -> None:
    stage.note.touch()
    stage.give(b"F")
    stage.give(b"P")
    stage.guard._control.close()
    assert stage.told(stage.monitor) == guard_process.CONTINUE
    assert stage.told(stage.agent) == THAW
    assert stage.guard._process.wait(20) == 0
    assert not stage.note.exists(), "from now on nobody else's stop is undone"


@pytest.mark.parametrize("last", [b"P", b"p", b"f"])
def test_also_who_dies_between_an_order_and_its_answer(
    stage: Stage, capfd: pytest.CaptureFixture[str], last: bytes
) -> None:
    """The guard's answer comes to nobody: the guest was frozen before, and is thawed."""
    stage.give(b"F")
    os.kill(stage.pid, signal.SIGSTOP)
    stage.guard._control.send(last)
    stage.guard._control.close()
    os.kill(stage.pid, signal.SIGCONT)
    if last == b"f":
        assert stage.told(stage.agent) == b"", "it was thawed already"
    else:
        assert stage.told(stage.agent) == THAW
    assert stage.told(stage.monitor) == (guard_process.CONTINUE if last == b"P" else b"")
    assert stage.guard._process.wait(20) == 0
    assert capfd.readouterr().err == ""


def test_an_answer_that_nobody_read_is_an_end_as_well(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    """Closing with unread bytes resets the connection."""
    stage.give(b"F")
    stage.guard._control.send(b"P")
    while not stage.guard._control.recv(1, socket.MSG_PEEK):
        pass
    stage.guard._control.close()
    assert stage.told(stage.agent) == THAW
    assert stage.guard._process.wait(20) == 0
    assert capfd.readouterr().err == ""


def test_without_a_guard_nothing_is_stopped(stage: Stage) -> None:
    os.kill(stage.pid, signal.SIGKILL)
    stage.guard._process.wait(20)
    with pytest.raises(errors.PointLost, match="guard process"), stage.guard.freezing():
        pytest.fail("it was frozen")
