"""QEMU without a running guest: up in a third of a second, and its disks are written through the monitor.

For what happens to images and processes between backups, where who writes does not matter. The writes come from the
guest's own device, through everything that stands on its disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headstart.units import KIB, MIB
from tests.e2e.rig import Rig
from tests.kit import disks
from tests.kit.vm import Vm

SIZE = 16 * MIB
#: Where ``write_both`` writes.
START = 2 * MIB
PIECE = 256 * KIB


@contextlib.contextmanager
def started(vm_disks: Sequence[disks.Disk], *extra: str) -> Iterator[Vm]:
    with contextlib.closing(Vm(vm_disks, extra=("-S", *extra))) as vm:
        vm.start()
        yield vm


def restart(vm: Vm) -> None:
    """End QEMU in good order and start it anew."""
    vm.quit()
    vm.start()


def write(vm: Vm, disk: str, offset: int, length: int, pattern: int) -> None:
    """Fill a range with one byte, and flush."""
    _io(vm, disk, f"write -P {pattern} {offset} {length}")
    _io(vm, disk, "flush")


def write_both(vm: Vm, number: int) -> None:
    """To both disks of ``pair``, at a place of its own for each number."""
    for disk in ("one", "two"):
        write(vm, disk, START + number * PIECE, PIECE, number + 1)


def _io(vm: Vm, disk: str, command: str) -> None:
    device = next(entry["qdev"] for entry in vm.qmp("query-block") if f"dev-{disk}" in entry["qdev"].split("/"))
    said = vm.qmp("human-monitor-command", command_line=f'qemu-io -d {device} "{command}"')
    assert not said or said.startswith("wrote "), said


def pair(folder: Path, *, blockdev: bool = True) -> tuple[disks.Disk, disks.Disk]:
    """A qcow2 and a raw disk, two thirds of them filled."""
    return (
        disks.Disk(disks.make_filled(folder / "one.qcow2", SIZE, "qcow2"), "qcow2", "one", blockdev=blockdev),
        disks.Disk(disks.make_filled(folder / "two.raw", SIZE, seed=2), "raw", "two", "virtio-scsi", blockdev=blockdev),
    )


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    with started(pair(tmp_path)) as machine:
        yield machine


@pytest.fixture
def rig(tmp_path: Path, vm: Vm) -> Rig:
    return Rig(tmp_path / "rig", vm, qga=False)
