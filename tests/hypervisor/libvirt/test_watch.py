"""The watch thaws what we leave frozen, at whichever moment we end. Over libvirt's own driver for tests."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from headstart import errors
from headstart.hypervisor.guard import Order
from headstart.hypervisor.libvirt import watch, watch_process
from headstart.hypervisor.libvirt.watch import Watch
from headstart.wire import children
from headstart.wire import libvirt as wire
from tests.hypervisor.libvirt.builtin import URI, UUID

THAW = b"thaw\n"


@dataclass(frozen=True, slots=True)
class Stage:
    """A watch, and the other end of the connection to who freezes."""

    watch: Watch
    agent: socket.socket

    def freeze(self) -> None:
        self.watch._tell({"frozen": 60.0, "thaw": THAW.hex()})

    def ended(self) -> bytes:
        """What it wrote there by its end."""
        assert self.watch._process.wait(60) == 0
        return self.agent.recv(1000)


@pytest.fixture
def stage() -> Iterator[Stage]:
    agent, theirs = socket.socketpair()
    agent.settimeout(20)
    watch = Watch(URI, UUID, Order(theirs.fileno(), THAW))
    for number in children.FOR_ALL:
        os.kill(watch._process.pid, number)  # also before it can ignore them
    theirs.close()
    yield Stage(watch, agent)
    watch.close()
    agent.close()


def test_what_is_thawed_in_time_is_left_alone(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    with stage.watch.freezing():
        assert stage.watch.spilled() == ""
    stage.watch.close()
    assert stage.ended() == b"" and capfd.readouterr().err == ""


def test_who_dies_leaves_nothing_frozen(stage: Stage) -> None:
    stage.freeze()
    stage.watch._control.close()
    assert stage.ended() == THAW


def test_also_who_dies_between_an_order_and_its_answer(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.freeze()
    os.kill(stage.watch._process.pid, signal.SIGSTOP)
    stage.watch._control.send(b'{"job": null}\n{}\n')
    stage.watch._control.close()
    os.kill(stage.watch._process.pid, signal.SIGCONT)
    assert stage.ended() == THAW
    assert capfd.readouterr().err == ""


def test_an_answer_that_nobody_read_is_an_end_as_well(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    """Closing with unread bytes resets the connection."""
    stage.freeze()
    stage.watch._control.send(b"{}\n")
    while not stage.watch._control.recv(1, socket.MSG_PEEK):
        pass
    stage.watch._control.close()
    assert stage.ended() == THAW
    assert capfd.readouterr().err == ""


def test_without_a_watch_nothing_is_frozen(stage: Stage) -> None:
    os.kill(stage.watch._process.pid, signal.SIGKILL)
    stage.watch._process.wait(20)
    with pytest.raises(errors.PointLost, match="watches the job"), stage.watch.freezing():
        pytest.fail("it was frozen")


class Guest:
    """How its agent answers an order to thaw, one after the other: None, as it is still freezing; with how many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: int | None) -> None:
        self.answers = list(answers)
        self.asked, self.may_answer = threading.Event(), threading.Event()
        wire._serve_events()
        monkeypatch.setattr(watch_process, "AGAIN_SECONDS", 0.0)
        # This driver has no keepalive.
        monkeypatch.setattr(libvirt.virConnect, "setKeepAlive", lambda *_: None)
        monkeypatch.setattr(libvirt.virDomain, "fsThaw", self.thaw)

    def thaw(self, *_: object) -> int:
        self.asked.set()
        assert self.may_answer.wait(20)
        answer = self.answers.pop(0)
        if answer is None:
            error = libvirt.libvirtError("Guest agent is not responding")
            error.err = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE,)
            raise error
        return answer


def test_a_freeze_that_takes_longer_than_we_waited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is thawed all the same, and the job that stands is watched meanwhile."""
    guest, note, scratch = Guest(monkeypatch, None, None, 2), tmp_path / "note", tmp_path / "scratch"
    note.touch()
    scratch.write_bytes(bytes(10))
    watching = watch_process.Watch(URI, UUID, -1)
    watching.obey({"job": "socket", "limits": {str(scratch): 11}})
    watching.obey({"frozen": 0.0, "thaw": "", "note": str(note)})
    watching.look()
    scratch.write_bytes(bytes(11))
    watching.look()
    assert watching.obey({}) == {"spilled": str(scratch)} and watching.ended
    assert len(guest.answers) == 3 and note.exists()
    guest.may_answer.set()
    assert watching.thawing is not None
    watching.thawing.join()
    watching.finish()
    assert guest.answers == [] and not note.exists(), "its owner may freeze it from now on"


def test_a_freeze_that_came_after_it_was_thawed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As libvirt was busy for so long: it is thawed again when we are gone."""
    guest, note = Guest(monkeypatch, 0, None, 0), tmp_path / "note"
    note.touch()
    guest.may_answer.set()
    watching = watch_process.Watch(URI, UUID, -1)
    watching.obey({"frozen": 0.0, "note": str(note)})
    watching.look()
    assert watching.thawing is not None
    watching.thawing.join()
    assert len(guest.answers) == 2 and note.exists()
    watching.finish()
    watching.thawing.join()
    assert guest.answers == [] and not note.exists()


def test_a_freeze_that_is_tried_again_is_not_undone_by_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guest, note = Guest(monkeypatch, None, 2), tmp_path / "note"
    note.touch()
    watching = watch_process.Watch(URI, UUID, -1)
    watching.obey({"frozen": 0.0, "note": str(note)})
    watching.look()
    first = watching.thawing
    assert guest.asked.wait(20)
    watching.obey({"frozen": 60.0, "note": str(note)})
    guest.may_answer.set()
    assert first is not None
    first.join(20)
    assert guest.answers == [2] and note.exists(), "what was under way is the last"
    watching.finish()
    assert watching.thawing is not None
    watching.thawing.join()
    assert guest.answers == [] and not note.exists()


@pytest.mark.parametrize("thaws", [True, False])
def test_one_that_thaws_outlives_us(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, thaws: bool) -> None:
    program = tmp_path / "watch_process.py"
    then = "os.close(control); " * thaws + "time.sleep(60)"
    program.write_text(f"import os, sys, time; control = int(sys.argv[1]); os.read(control, 1); {then}")
    monkeypatch.setattr(watch_process, "__file__", str(program))
    monkeypatch.setattr(watch, "LEAVE_SECONDS", 0.1 if thaws else 20)
    monkeypatch.setattr(watch_process, "PATIENCE_SECONDS", 20 if thaws else 0.1)
    outlives = Watch(URI, UUID)
    outlives.close()
    assert outlives._process.poll() == (None if thaws else -signal.SIGKILL)
    outlives._process.kill()
