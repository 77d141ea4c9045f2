"""A guest with two file systems, one mounted inside the other, and agentd in it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headstart.guest.channel import Channel
from tests.kit import control, disks
from tests.kit.vm import Vm

OUTER, INNER = "/mnt", "/mnt/inner"
NOTE = "/run/headstart-agentd.frozen"
HOOKS = "/etc/headstart/freeze.d"


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Vm]:
    chosen = (
        disks.Disk(disks.make_ext4(folder / "one.qcow2", 32 * disks.MIB, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_ext4(folder / "two.raw", 16 * disks.MIB), "raw", "two", interface="virtio-scsi"),
    )
    with Vm(chosen) as vm:
        mount(vm)
        yield vm


def mount(vm: Vm) -> None:
    vm.guest.mount(vm.device("one") + "1", OUTER)
    vm.guest.mount(vm.device("two") + "1", INNER)


def unmount(vm: Vm) -> None:
    vm.guest.unmount(INNER)
    vm.guest.unmount(OUTER)


@contextlib.contextmanager
def session(vm: Vm) -> Iterator[Channel]:
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(vm.agent_socket))
        with Channel(link, seconds=20) as channel:
            yield channel


def frozen(vm: Vm, path: str) -> bool:
    try:
        vm.guest.freeze(path)
    except control.GuestError as error:
        assert "busy" in str(error), error
        return True
    # It may be thawed by whom the test is about.
    with contextlib.suppress(control.GuestError):
        vm.guest.thaw(path)
    return False


def both(vm: Vm) -> tuple[bool, bool]:
    return frozen(vm, OUTER), frozen(vm, INNER)


def thawed(vm: Vm) -> bool:
    return both(vm) == (False, False)


def can_write(vm: Vm, path: str, timeout: float) -> bool:
    try:
        vm.guest.run(f"touch {path}/file && sync {path}/file", timeout=timeout)
    except (control.GuestError, control.NoAnswer):
        return False
    return True


def note(vm: Vm) -> str:
    """What it says, if there is one."""
    return vm.guest.run(f"! [ -e {NOTE} ] || cat {NOTE}").output


def wait(until: Callable[[], bool], seconds: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds, f"did not come about in {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def processes(vm: Vm) -> list[int]:
    """Of agentd: itself and its children."""
    return matching(vm, "python3.*headstart-agentd")


def matching(vm: Vm, command: str) -> list[int]:
    """Processes by a regular expression for their command lines."""
    # Brackets, so that it does not match the shell that runs this.
    found = vm.guest.run(f"ps -o pid,args | grep '{command[:-1]}[{command[-1]}]'", check=False).output
    return [int(line.split()[0]) for line in found.splitlines()]


def kill(vm: Vm, *numbers: int) -> None:
    """All at one moment: none sees another one die."""
    named = " ".join(map(str, numbers))
    vm.guest.run(f"kill -STOP {named}; kill -9 {named}")
