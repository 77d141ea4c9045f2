"""The machine that is backed up: a guest with two disks that writes and fsyncs all the time; the product beside it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.units import MIB
from tests.kit import disks, workloads
from tests.kit.cli import Cli
from tests.kit.inguest import content
from tests.kit.vm import Vm

VM_NAME = "demo"
#: For one command of the product: it copies a GiB, on whatever machine this is.
COMMAND_SECONDS = 1800.0
SYSTEM_SIZE = 1280 * MIB
DATA_SIZE = 1024 * MIB
#: Content that nobody changes, beside what the workload changes.
STATIC_BYTES = 128 * MIB
#: What the workload changes in a day, on each disk.
CHANGED_BYTES = 768 * MIB
DATA_OFFSET = 128 * MIB
#: In the root of the file system.
WORK_FILE = "work"
STATIC_FILE = "static"
MOUNT_POINT = "/mnt"

#: The writes of a day: 64 KiB and an fsync each, blocks in random order, one in twenty again and again.
WRITE_SIZE = 64 * 1024
RATE = 40.0 * MIB
HOT = 0.05
HOT_SHARE = 0.2
COMPRESSIBLE = 0.5


@dataclass(frozen=True, slots=True)
class Scene:
    vm: Vm
    cli: Cli
    folder: Path
    #: What the disk ``data`` was at the beginning.
    initial_data: Path
    #: What the file ``STATIC_FILE`` holds.
    static: Path

    def headstart(self, *arguments: str | Path) -> dict[str, Any]:
        """A command of the product; its report."""
        report: dict[str, Any] = self.cli.run(*arguments, timeout=COMMAND_SECONDS).json
        return report

    @property
    def regions(self) -> tuple[workloads.Region, workloads.Region]:
        """What the workload changes: a file in ext4, and a part of the other disk past the guest's cache."""
        return (
            workloads.Region(f"{MOUNT_POINT}/{WORK_FILE}", 0, CHANGED_BYTES),
            workloads.Region(self.vm.device("data"), DATA_OFFSET, CHANGED_BYTES),
        )

    def churn(self, seed: int, *, share: float = 1.0, rate: float = RATE) -> workloads.Churn:
        """Start the workload on the first ``share`` of the regions. Each seed has its own content and hot blocks."""
        regions = [region._replace(length=int(region.length * share)) for region in self.regions]
        return workloads.churn(
            self.vm.guest,
            regions,
            rate=rate,
            write_size=WRITE_SIZE,
            hot=HOT,
            hot_share=HOT_SHARE,
            compressible=COMPRESSIBLE,
            seed=seed,
        )


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Scene]:
    """The VM, booted, and known to a new repository in ``folder``, which is made."""
    folder.mkdir(parents=True)
    pair = _make_disks(folder)
    initial = folder / "initial-data.raw"
    shutil.copyfile(pair[1].path, initial)
    with Vm(pair, memory_mib=384, cpus=2) as vm:
        vm.guest.mount(vm.device("system") + "1", MOUNT_POINT)
        cli = Cli(folder)
        cli.run("init")
        channels = ("--qmp", vm.qmp_socket, "--qga", vm.qga_socket, "--agent", vm.agent_socket)
        cli.run("vm", "add", VM_NAME, *channels)
        yield Scene(vm, cli, folder, initial, folder / "files" / STATIC_FILE)


def _make_disks(folder: Path) -> tuple[disks.Disk, disks.Disk]:
    files = folder / "files"
    files.mkdir()
    _write_random(files / WORK_FILE, CHANGED_BYTES)
    _write_random(files / STATIC_FILE, STATIC_BYTES)
    system = disks.make_ext4(folder / "system.qcow2", SYSTEM_SIZE, "qcow2", files=files)
    (files / WORK_FILE).unlink()
    data = disks.make_filled(folder / "data.raw", DATA_SIZE)
    return (
        disks.Disk(system, "qcow2", "system"),
        disks.Disk(data, "raw", "data", interface="virtio-scsi"),
    )


def _write_random(path: Path, length: int) -> None:
    with path.open("xb") as file:
        for start in range(0, length, MIB):
            file.write(content.random_bytes(f"{path.name}:{start}", MIB))
