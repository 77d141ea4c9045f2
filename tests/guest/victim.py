"""A run of ours that is killed when the guest is frozen: ``victim.py MONITOR AGENT SCRATCH QGA GUARDED``.

QGA is empty if the agent freezes. Where GUARDED is empty, the guard dies with us.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.guest.freezing import AgentFreezer
from headstart.hypervisor.contract import PointRequest
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu.machine import QemuMachine
from tests.agentd import guests
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import crash


class Place:
    """All that ``guests.session`` wants to know of a VM."""

    def __init__(self, agent_socket: str) -> None:
        self.agent_socket = Path(agent_socket)


@contextmanager
def unguarded(guard: Guard) -> Iterator[None]:
    os.kill(guard._process.pid, signal.SIGKILL)
    guard._process.wait()
    yield


def main(monitor: str, agent: str, scratch: str, qga: str, guarded: str) -> None:
    if not guarded:
        Guard.freezing = unguarded  # type: ignore[assignment, method-assign]
    name = "ThroughQga" if qga else "ThroughAgent"
    crash.Place(f"headstart.hypervisor.qemu.freeze:{name}.freeze", die_after=1)
    machine = QemuMachine(
        Path(monitor), installation=INSTALLATION, scratch=Path(scratch), label="vm", qga=Path(qga) if qga else None
    )
    with guests.session(Place(agent)) as channel:  # type: ignore[arg-type]
        machine.take(PointRequest((), (), {}, freezer=AgentFreezer(channel)))
    raise AssertionError("it was not killed")


if __name__ == "__main__":
    main(*sys.argv[1:])
