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
from headstart.hypervisor import guard, guard_process
from headstart.hypervisor.guard import Guard, Order
from headstart.wire import children

THAW = b"thaw\n"


@dataclass(frozen=True, slots=True)
class Stage:
    """A guard, and the other ends of what it inherited."""

    guard: Guard
    monitor: socket.socket
    agent: socket.socket
    note: Path
    #: What it called because it outlives us.
    left: list[bool]

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
    note, left = tmp_path / "note", list[bool]()
    guard = Guard(qmp.fileno(), Order(freezer.fileno(), THAW), note, lambda: left.append(True))
    for number in children.FOR_ALL:
        os.kill(guard._process.pid, number)  # also before it can ignore them
    for each in (qmp, freezer):
        each.close()
    yield Stage(guard, monitor, agent, note, left)
    for each in (monitor, agent):
        each.close()
    guard.close()


def test_what_is_undone_in_time_is_left_alone(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    with stage.guard.freezing(), stage.guard.pausing():
        assert stage.note.exists()
    stage.guard.close()
    assert stage.monitor.recv(1) == stage.agent.recv(1) == b""
    assert not stage.note.exists() and capfd.readouterr().err == ""
    assert not stage.left


def test_who_dies_leaves_nothing_stopped_or_frozen(stage: Stage) -> None:
    stage.give(b"F")
    stage.give(b"P")
    assert stage.note.exists()
    stage.guard._control.close()
    assert stage.told(stage.monitor) == guard_process.CONTINUE_LAST
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
    assert stage.told(stage.monitor) == (guard_process.CONTINUE_LAST if last == b"P" else b"")
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
    assert stage.told(stage.monitor) == guard_process.CONTINUE_LAST
    assert stage.guard._process.wait(20) == 0
    assert capfd.readouterr().err == ""


def acting(stage: Stage) -> None:
    """It has ordered QEMU to continue the VM, as we hang."""
    stage.give(b"P")
    stage.monitor.settimeout(20)
    assert stage.monitor.recv(1000) == guard_process.CONTINUE


def ordered(stage: Stage) -> bytes:
    """At the end, after it has continued the VM again as often as that took; nothing if that was all."""
    while found := stage.monitor.recv(1000):
        if last := found.replace(guard_process.CONTINUE, b""):
            return last
    return b""


def test_the_monitor_is_held_until_the_vm_was_continued(stage: Stage) -> None:
    """QEMU drops what it was ordered when its client leaves; and goes on with a stop after minutes, maybe."""
    acting(stage)
    assert stage.note.exists(), "a later run has to know that it was we"
    stage.guard._control.close()
    assert ordered(stage) == guard_process.CONTINUE_LAST, "a stop of ours may have come after the first one"
    stage.monitor.sendall(b'{"return": {}, "id": "headstart-guard"}\r\n{"timestamp": {}, "event": "STOP"}\r\n')
    assert stage.monitor.recv(1000) == guard_process.ASK, "that was not the answer"
    assert stage.note.exists() and stage.guard._process.poll() is None
    stage.monitor.sendall(b'{"return": {"running": true}, "id": "head')
    stage.monitor.sendall(b'start-guard-end"}\r\n')
    assert stage.guard._process.wait(20) == 0
    assert not stage.note.exists()


def test_a_stop_that_comes_too_late_is_undone_as_well(stage: Stage) -> None:
    """The host is so busy that we stop the VM after we have been too slow, and hang again."""
    acting(stage)
    assert stage.monitor.recv(1000) == guard_process.CONTINUE, "the stop may have come meanwhile"
    assert stage.note.exists()


def test_a_guard_that_acted_and_is_not_needed_any_longer(stage: Stage) -> None:
    acting(stage)
    stage.give(b"p")
    stage.guard._control.close()
    assert ordered(stage) == b""
    assert stage.guard._process.wait(20) == 0


def test_whoever_gives_up_leaves_the_guard_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "CLOSE_SECONDS", 0.1)
    with pytest.raises(errors.Unreachable), stage.guard.pausing():
        raise errors.Unreachable("QEMU's monitor did not answer.")
    stage.guard.close()
    assert stage.guard._process.poll() is None and stage.note.exists()
    assert stage.left == [True]
    stage.monitor.sendall(b'{"return": {}, "id": "headstart-guard-end"}\r\n')
    assert stage.guard._process.wait(20) == 0
    assert not stage.note.exists()


def test_a_guard_that_dies_while_the_vm_stands_still(stage: Stage) -> None:
    with pytest.raises(errors.PointLost, match="guard process"), stage.guard.pausing():
        os.kill(stage.pid, signal.SIGKILL)
        stage.guard._process.wait(20)
        assert stage.note.exists()
    assert not stage.note.exists(), "it was continued"


def test_without_a_guard_nothing_is_stopped(stage: Stage) -> None:
    os.kill(stage.pid, signal.SIGKILL)
    stage.guard._process.wait(20)
    with pytest.raises(errors.PointLost, match="guard process"), stage.guard.freezing():
        pytest.fail("it was frozen")
    with pytest.raises(errors.PointLost, match="guard process"), stage.guard.pausing():
        pytest.fail("it was stopped")
    assert not stage.note.exists(), "a later run would undo its owner's stop"


def test_a_note_that_cannot_be_made(stage: Stage) -> None:
    stage.note.symlink_to(stage.note.with_name("nowhere") / "note")
    with pytest.raises(errors.PointLost, match="cannot be made"), stage.guard.pausing():
        pytest.fail("it was stopped")
    stage.guard.close()
    assert stage.monitor.recv(1) == b"", "there is nothing to undo"
