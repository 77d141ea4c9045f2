"""A bare QEMU whose disk is recorded by overlays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from headstart.hypervisor.contract import Start, Stop
from headstart.hypervisor.qemu.machine import QemuMachine
from tests.hypervisor.qemu import bare
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import disks, layers

DISK = "dev-data"
BLOCK = 64 * 1024


def head(folder: Path) -> Path:
    return layers.cover(disks.make_filled(folder / "data.raw", 8 * disks.MIB), INSTALLATION)


def arguments(path: Path) -> list[str]:
    """As it is started now."""
    return bare.disk("data", path.resolve(), "qcow2")


@contextlib.contextmanager
def connected(vm: bare.Bare) -> Iterator[QemuMachine]:
    with vm.machine(layered=True) as machine:
        machine.recover()
        yield machine


def rotate(vm: bare.Bare, name: str, *ended: str) -> None:
    """A round: what was recorded before is in the image when it is over."""
    with connected(vm) as machine:
        machine.transact([Start(DISK, name), *(Stop(DISK, each) for each in ended)])
        machine.settle([DISK])
