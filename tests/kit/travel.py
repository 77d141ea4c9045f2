"""A VM's way to another QEMU on this machine: over a unix socket, on the same images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.kit.disks import Disk
from tests.kit.vm import Vm

FAST = 1 << 30
SECONDS = 60.0
OVER = ("completed", "failed", "cancelled")


class Monitored(Protocol):
    """A QEMU with a monitor for tests."""

    def qmp(self, command: str, **arguments: Any) -> Any: ...


def begin(
    source: Monitored,
    target: Monitored,
    socket: Path,
    *,
    bitmaps: bool,
    bandwidth: int = FAST,
    capabilities: Sequence[str] = (),
) -> None:
    """``target`` was started with ``-incoming defer``. ``bitmaps``: the capability ``dirty-bitmaps`` on both sides."""
    wanted = [{"capability": "dirty-bitmaps", "state": bitmaps}]
    wanted += [{"capability": name, "state": True} for name in capabilities]
    for each in (source, target):
        each.qmp("migrate-set-capabilities", capabilities=wanted)
    source.qmp("migrate-set-parameters", max_bandwidth=bandwidth)
    target.qmp("migrate-incoming", uri=f"unix:{socket}")
    source.qmp("migrate", uri=f"unix:{socket}")


def wait(source: Monitored, *states: str) -> str:
    """The migration's state, once it is one of these."""
    deadline = time.monotonic() + SECONDS
    while True:
        state: str = source.qmp("query-migrate").get("status", "none")
        if state in states:
            return state
        assert time.monotonic() < deadline, f"the migration is {state} for too long"
        time.sleep(0.01)


def send(source: Monitored, target: Monitored, socket: Path, *, bitmaps: bool) -> str:
    """How it ended. If it arrived, ``target`` runs."""
    begin(source, target, socket, bitmaps=bitmaps)
    state = wait(source, *OVER)
    while state == "completed" and target.qmp("query-status")["status"] == "inmigrate":
        time.sleep(0.01)
    return state


def waiting(vm: Vm, vm_disks: Sequence[Disk] = (), *, memory_mib: int = 256) -> Vm:
    """A second QEMU of the same kind, which waits for the VM. The caller closes it."""
    other = Vm(vm_disks or vm.disks, memory_mib=memory_mib, extra=(*vm.extra, "-incoming", "defer"))
    other.start()
    return other
