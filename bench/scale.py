"""Large repositories and large disks: ``python -m bench.scale`` writes docs/scale.md. Needs 25 GB of disk for a while.

The index: made-up repositories of 1, 10 and 100 million chunks, opened for the first time, again, and asked. The disks:
one of 10 GiB and one of 6 TiB, both nearly empty, of a real QEMU whose guest never starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import bulk, machine, measure, scalepage
from bench.measure import Cost
from headstart.units import GIB, MIB, TIB
from tests.e2e import bare
from tests.kit import disks
from tests.kit.cli import Cli
from tests.kit.disks import Disk
from tests.kit.vm import Vm

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "bench" / "scale"
RESULT = ROOT / "build" / "bench" / "scale.json"
PAGE = ROOT / "docs" / "scale.md"
MILLIONS = (1, 10, 100)
SIZES = {"10 GiB": 10 * GIB, "6 TiB": 6 * TIB}
CHANGED = GIB
PIECE = MIB
RUNS = 3
VM_NAME = "bench"

Say = Callable[[str], None]


@dataclass(slots=True)
class Disks:
    """Of backups of one disk: of what changed, and of nothing."""

    changed: list[Cost] = field(default_factory=list)
    empty: list[Cost] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=MILLIONS, help="chunks of the repositories")
    given = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    shutil.rmtree(WORK, ignore_errors=True)
    try:
        found = run(given.millions, say)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    PAGE.write_text(scalepage.written(found, machine.describe()))
    say(f"written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def run(millions: list[int], say: Say) -> dict[str, Any]:
    found: dict[str, Any] = {"index": [], "disks": [], "runs": RUNS, "changed_gib": CHANGED // GIB}
    for number, count in enumerate(millions):
        folder, cache = WORK / "repository", WORK / "cache"
        say(f"a repository of {count} million chunks")
        bulk.make(folder, count * 1_000_000 // bulk.PACK_CHUNKS * bulk.PACK_CHUNKS)
        say("loaded for the first time, and again")
        rows = {"first": _looked_up(folder, cache), "again": _looked_up(folder, cache)}
        size = sum(path.stat().st_size for path in cache.rglob("*"))
        found["index"].append({**rows, "cache_bytes": size})
        if number + 1 == len(millions):
            say("disks, into a new repository and into this one")
            found["disks"] = [
                {"title": "Into a repository of their own", **_disks(WORK / "small", None, say)},
                {
                    "title": f"Into the repository with {count} million chunks",
                    **_disks(WORK / "large", (folder, cache), say),
                },
            ]
        shutil.rmtree(folder)
        shutil.rmtree(cache)
    return found


def _looked_up(folder: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.lookups", str(folder), str(cache)]
    told: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    return told


def _disks(folder: Path, repository: tuple[Path, Path] | None, say: Say) -> dict[str, Any]:
    """``repository``: its folder, and that of the cache; None: a new one."""
    cli = Cli(folder, bulk.PASSWORD.decode())
    if repository is None:
        cli.run("init")
    else:
        cli.environment |= {"HEADSTART_REPOSITORY": str(repository[0]), "HEADSTART_CACHE": str(repository[1])}
    costs = {name: Disks() for name in SIZES}
    for name, size in SIZES.items():
        say(f"disk of {name}: {RUNS} times {CHANGED // GIB} GiB, and nothing")
        with tempfile.TemporaryDirectory(dir=folder) as place:
            _disk(cli, Path(place), name.replace(" ", ""), size, costs[name])
    return {
        f"{name}, {what}": {
            "seconds": statistics.median(each.seconds for each in found),
            "cpu_seconds": statistics.median(each.cpu_seconds for each in found),
            "peak_bytes": max(each.peak_bytes for each in found),
        }
        for name, cost in costs.items()
        for what, found in (("changed", cost.changed), ("empty", cost.empty))
    }


def _disk(cli: Cli, folder: Path, name: str, size: int, costs: Disks) -> None:
    image = disks.make_empty(folder / "disk.qcow2", size, "qcow2")
    with bare.started([Disk(image, "qcow2", "data")]) as vm:
        cli.run("vm", "add", name, "--qmp", vm.qmp_socket)
        cli.run("backup", name)
        for number in range(RUNS):
            _change(vm, folder / "piece", size, number)
            costs.changed.append(_backed_up(cli, vm, name))
            costs.empty.append(_backed_up(cli, vm, name))
        cli.run("vm", "release", name)


def _backed_up(cli: Cli, vm: Vm, name: str) -> Cost:
    command = [sys.executable, "-m", "headstart.cli.main", "--json", "backup", name]
    return measure.run(command, env=cli.environment, beside=vm.pid)


def _change(vm: Vm, piece: Path, size: int, number: int) -> None:
    """In pieces that are spread over the disk, the same at each time, each time with other content."""
    for start in _places(size):
        piece.write_bytes(os.urandom(PIECE // 2) + bytes([number + 1]) * (PIECE // 2))
        _io(vm, f"write -q -s {piece} {start} {PIECE}")
    _io(vm, "flush")


def _io(vm: Vm, command: str) -> None:
    said = vm.qmp("human-monitor-command", command_line=f'qemu-io -d dev-data/virtio-backend "{command}"')
    if said:
        raise measure.Failed(said)


def _places(size: int) -> Iterator[int]:
    count = CHANGED // PIECE
    return (size // count * number // PIECE * PIECE for number in range(count))


if __name__ == "__main__":
    main()
