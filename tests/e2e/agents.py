"""The agent in a guest: it is waited for, found, and killed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.guest.channel import Channel
from tests.e2e.rig import Rig
from tests.kit.vm import Vm


def wait_for_agentd(vm: Vm) -> None:
    """Also after it was killed: the guest starts it again."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(str(vm.agent_socket))
    Channel(link, seconds=60.0).close()


def agentd(vm: Vm) -> str:
    """Process ids of agentd in the guest."""
    return vm.guest.run("ps -o pid,args | grep '[h]eadstart-agentd' | grep -v sh").output


def kill(vm: Vm, signal: str = "KILL") -> None:
    number = re.search(r"\d+", agentd(vm))
    assert number, vm.log[-1000:]
    vm.guest.run(f"kill -{signal} {number.group()}")


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Iterator[Rig]:
    wait_for_agentd(machine)
    made = Rig(tmp_path / "rig", machine, agent=True)
    yield made
    made.release()
