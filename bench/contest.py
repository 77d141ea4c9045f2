"""Full and incremental backup and restore of a disk with real files, and nbdcopy of the same disk of the same VM.

nbdcopy reads the disk from QEMU's own NBD server and writes a sparse raw file: no format, no checksums, no
compression, nothing told of what changed. It is the floor for reading everything.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import figure, measure, realdisk
from bench.figure import Figure
from bench.measure import Cost
from headstart.units import GIB, MIB
from tests.kit import workloads
from tests.kit.cli import Cli
from tests.kit.disks import Disk
from tests.kit.vm import Vm

VM_NAME = "bench"
NBDCOPY = "nbdcopy into a raw file"
REWRITTEN_OFFSET, REWRITTEN_BYTES = 1 * GIB, 100 * MIB

Say = Callable[[str], None]


@dataclass(slots=True)
class Costs:
    """One entry for each run."""

    full: list[Cost] = field(default_factory=list)
    full_stored: list[int] = field(default_factory=list)
    incremental: list[Cost] = field(default_factory=list)
    incremental_stored: list[int] = field(default_factory=list)
    restore_raw: list[Cost] = field(default_factory=list)
    restore_qcow2: list[Cost] = field(default_factory=list)
    copy: list[Cost] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)


def run(folder: Path, runs: int, say: Say) -> list[Figure]:
    """``folder`` is made."""
    say("making a disk with real files, or taking the one that is there")
    source = realdisk.image()
    folder.mkdir(parents=True)
    image = Path(shutil.copyfile(source, folder / "disk.qcow2"))
    costs = Costs()
    with Vm([Disk(image, "qcow2", "files")]) as vm:
        for number in range(runs):
            say(f"full and incremental backup, restore, and nbdcopy: run {number + 1} of {runs}")
            _Contest(vm, folder / f"run-{number}", costs).run(seed=number)
    return _figures(costs)


class _Contest:
    """One run, with a new repository, on a VM that has nothing of ours."""

    def __init__(self, vm: Vm, folder: Path, costs: Costs) -> None:
        self._vm = vm
        self._folder = folder
        self._costs = costs
        self._cli = Cli(folder)

    def run(self, seed: int) -> None:
        costs = self._costs
        self._cli.run("init")
        self._cli.run("vm", "add", VM_NAME, "--qmp", self._vm.qmp_socket, "--qga", self._vm.qga_socket)
        self._copy()
        costs.full.append(self._headstart("backup", VM_NAME))
        costs.full_stored.append(full := _allocated(self._cli.repository))
        self._rewrite(seed)
        self._copy()
        costs.incremental.append(self._headstart("backup", VM_NAME))
        costs.incremental_stored.append(_allocated(self._cli.repository) - full)
        for image_format, found in (("raw", costs.restore_raw), ("qcow2", costs.restore_qcow2)):
            self._copy()
            target = self._folder / image_format
            found.append(self._headstart("restore", f"{VM_NAME}@latest", str(target), "--format", image_format))
            shutil.rmtree(target)
        self._cli.run("vm", "release", VM_NAME)
        shutil.rmtree(self._folder)

    def _rewrite(self, seed: int) -> None:
        region = workloads.Region(self._vm.device("files"), REWRITTEN_OFFSET, REWRITTEN_BYTES)
        with workloads.churn(self._vm.guest, [region], hot_share=0.05, sync_every=16, seed=seed) as churn:
            churn.wait_changed(REWRITTEN_BYTES)

    def _headstart(self, *arguments: str) -> Cost:
        command = [sys.executable, "-m", "headstart.cli.main", "--json", *arguments]
        return measure.run(command, env=self._cli.environment, beside=self._vm.pid)

    def _copy(self) -> None:
        target = self._folder / "copy.raw"
        with self._export() as uri:
            self._costs.copy.append(measure.run(["nbdcopy", uri, target], beside=self._vm.pid))
        self._costs.copied.append(target.stat().st_blocks * 512)
        target.unlink()

    @contextlib.contextmanager
    def _export(self) -> Iterator[str]:
        """The running disk, from QEMU's NBD server."""
        socket = self._vm.qmp_socket.with_name("nbd")
        self._vm.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
        try:
            self._vm.qmp("block-export-add", type="nbd", id="peer", node_name="files", name="files", writable=False)
            yield f"nbd+unix:///files?socket={socket}"
        finally:
            self._vm.qmp("nbd-server-stop")


def _allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def _figures(costs: Costs) -> list[Figure]:
    files = f"{realdisk.SIZE >> 30} GiB disk with {realdisk.FILES_BYTES >> 30} GiB of files"
    rewritten = f"incremental backup, {REWRITTEN_BYTES >> 20} MiB rewritten"
    seconds = [
        _compared(name, found, costs.copy, lambda cost: cost.seconds, "s")
        for name, found in (
            (f"full backup, {files}", costs.full),
            (rewritten, costs.incremental),
            ("restore to raw", costs.restore_raw),
            ("restore to qcow2", costs.restore_qcow2),
        )
    ]
    stored = [
        figure.of("full backup: bytes stored", costs.full_stored, costs.copied, NBDCOPY, "bytes"),
        figure.of(f"{rewritten}: bytes stored", costs.incremental_stored, costs.copied, NBDCOPY, "bytes"),
    ]
    return [*seconds, *stored, *_processor(costs), *_memory(costs)]


def _processor(costs: Costs) -> Iterator[Figure]:
    for name, found in (("full backup", costs.full), ("restore to raw", costs.restore_raw)):
        yield _compared(f"{name}: processor time", found, costs.copy, lambda cost: cost.cpu_seconds, "s")
    yield _compared(
        "full backup: QEMU's processor time", costs.full, costs.copy, lambda cost: cost.other_cpu_seconds, "s"
    )


def _memory(costs: Costs) -> Iterator[Figure]:
    for name, found in (
        ("full backup", costs.full),
        ("incremental backup", costs.incremental),
        ("restore to raw", costs.restore_raw),
    ):
        yield _compared(f"{name}: peak memory", found, costs.copy, lambda cost: cost.peak_bytes, "bytes")


def _compared(name: str, ours: list[Cost], peer: list[Cost], value: Callable[[Cost], float], unit: str) -> Figure:
    return figure.of(name, [value(cost) for cost in ours], [value(cost) for cost in peer], NBDCOPY, unit)
