"""The tools that users would take otherwise for the files of disks, beside ours: restic and borg, as Debian has them.

They read a raw image of the disk from the page cache; ours reads the running VM's disk. Each with its own defaults; all
of them compress, encrypt and find duplicates.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import figure, measure, realdisk
from bench.contest import REWRITTEN_BYTES, REWRITTEN_OFFSET, VM_NAME
from bench.figure import Figure
from headstart.units import KIB
from tests.kit import workloads
from tests.kit.cli import Cli
from tests.kit.disks import Disk
from tests.kit.vm import Vm

Say = Callable[[str], None]
Command = list[str | Path]
STEPS = (
    "full backup",
    f"incremental backup, {REWRITTEN_BYTES >> 20} MiB rewritten",
    "restore to raw",
    "verify all data",
)
STORED = "full backup: bytes stored"


@dataclass(frozen=True, slots=True)
class Tool:
    """Commands by step. ``backup`` and ``restore`` are told the name of what is made, or was made last."""

    name: str
    environment: dict[str, str]
    repository: Path
    init: Sequence[Command]
    backup: Callable[[str], Command]
    restore: Callable[[str], Command]
    verify: Command


@dataclass(slots=True)
class Costs:
    seconds: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})
    stored: list[int] = field(default_factory=list)


def run(folder: Path, runs: int, say: Say) -> list[Figure]:
    """``folder`` is made."""
    folder.mkdir(parents=True)
    image = Path(shutil.copyfile(realdisk.image(), folder / "disk.qcow2"))
    raw = folder / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    costs: dict[str, Costs] = {}
    with Vm([Disk(image, "qcow2", "files")]) as vm:
        for number in range(runs):
            say(f"restic, borg and ours: run {number + 1} of {runs}")
            for make in (_restic, _borg, _ours):
                work = folder / "work"
                (work / "target").mkdir(parents=True)
                tool = make(work, raw, vm)
                _run(tool, raw, vm, number, costs.setdefault(tool.name, Costs()))
                if make is _ours:
                    Cli(work).run("vm", "release", VM_NAME)
                shutil.rmtree(work)
    return _figures(costs)


def _restic(folder: Path, raw: Path, vm: Vm) -> Tool:
    repository = folder / "repository"
    # From 0.15 on; without it the zeroes are written, too.
    known = subprocess.run(["restic", "restore", "--help"], capture_output=True, text=True, check=True).stdout
    sparse = ["--sparse"] if "--sparse" in known else []
    return Tool(
        f"restic {_version('restic', 'version')}",
        os.environ | {"RESTIC_PASSWORD": "bench", "RESTIC_REPOSITORY": str(repository), "HOME": str(folder)},
        repository,
        [["restic", "-q", "init"]],
        lambda name: ["restic", "-q", "backup", raw],
        lambda name: ["restic", "-q", "restore", "latest", *sparse, "--target", folder / "target"],
        ["restic", "-q", "check", "--read-data"],
    )


def _borg(folder: Path, raw: Path, vm: Vm) -> Tool:
    repository = folder / "repository"
    return Tool(
        f"borg {_version('borg', '--version')}",
        os.environ
        | {"BORG_PASSPHRASE": "bench", "BORG_REPO": str(repository), "BORG_BASE_DIR": str(folder / "borg-home")},
        repository,
        [["borg", "init", "--encryption", "repokey-blake2"]],
        lambda name: ["borg", "create", f"::{name}", raw],
        lambda name: ["env", "-C", folder / "target", "borg", "extract", "--sparse", f"::{name}"],
        ["borg", "check", "--verify-data"],
    )


def _ours(folder: Path, raw: Path, vm: Vm) -> Tool:
    cli = Cli(folder)
    headstart: Command = [sys.executable, "-m", "headstart.cli.main", "--json"]
    return Tool(
        "ours",
        dict(cli.environment),
        cli.repository,
        [
            [*headstart, "init"],
            [*headstart, "vm", "add", VM_NAME, "--qmp", vm.qmp_socket, "--qga", vm.qga_socket],
        ],
        lambda name: [*headstart, "backup", VM_NAME],
        lambda name: [*headstart, "restore", f"{VM_NAME}@latest", folder / "target" / "made", "--format", "raw"],
        [*headstart, "verify"],
    )


def _run(tool: Tool, raw: Path, vm: Vm, number: int, costs: Costs) -> None:
    def timed(command: Command) -> float:
        return measure.run(command, env=tool.environment, beside=vm.pid).seconds

    for command in tool.init:
        measure.run(command, env=tool.environment, beside=vm.pid)
    full, incremental, restore, verify = (costs.seconds[step] for step in STEPS)
    full.append(timed(tool.backup("first")))
    costs.stored.append(_allocated(tool.repository))
    _rewrite(tool, raw, vm, number)
    incremental.append(timed(tool.backup("second")))
    restore.append(timed(tool.restore("second")))
    verify.append(timed(tool.verify))


def _rewrite(tool: Tool, raw: Path, vm: Vm, number: int) -> None:
    if tool.name == "ours":
        region = workloads.Region(vm.device("files"), REWRITTEN_OFFSET, REWRITTEN_BYTES)
        with workloads.churn(vm.guest, [region], hot_share=0.05, sync_every=16, seed=number) as churn:
            churn.wait_changed(REWRITTEN_BYTES)
        return
    source = random.Random(number)
    with raw.open("r+b") as file:
        file.seek(REWRITTEN_OFFSET)
        for _ in range(REWRITTEN_BYTES // (64 * KIB)):
            file.write(source.randbytes(32 * KIB) * 2)


def _allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def _version(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]


def _figures(costs: dict[str, Costs]) -> list[Figure]:
    ours = costs.pop("ours")
    figures = []
    for name, theirs in costs.items():
        figures += [figure.of(step, ours.seconds[step], theirs.seconds[step], name, "s") for step in STEPS]
        figures.append(figure.of(STORED, ours.stored, theirs.stored, name, "bytes"))
    return figures
