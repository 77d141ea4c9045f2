"""The watch thaws what we leave frozen, at whichever moment we end. Over libvirt's own driver for tests."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from headstart import errors
from headstart.hypervisor.guard import Order
from headstart.hypervisor.libvirt.watch import Watch

THAW = b"thaw\n"
#: The domain that this driver begins with (libvirt's src/test/test_driver.c).
URI, UUID = "test:///default", "6695eb01-f6a4-8304-79aa-97f2502e193f"


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
