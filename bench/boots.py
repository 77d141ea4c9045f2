"""How long a Debian guest takes to its agent: booted from its backup, and from its local disk.

In turn, each time from the start of a process (``headstart boot``; QEMU alone) to the first answer of
qemu-guest-agent. Alone: ``python -m bench.boots``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import figure
from bench.figure import Figure
from headstart import errors
from headstart.wire.qga import Qga
from tests.kit import debian
from tests.kit.cli import Cli

NAME = "debian"
_SYNC_SECONDS = 0.5


def run(folder: Path, runs: int, say: Callable[[str], None]) -> list[Figure]:
    folder.mkdir(parents=True)
    ours, theirs = [], []
    cli = Cli(folder, **{name: value for name, value in os.environ.items() if name == "PYTHONPATH"})
    with contextlib.closing(debian.DebianVm(folder)) as vm:
        vm.start()
        vm.wait_ready()
        cli.run("init")
        cli.run("vm", "add", NAME, "--qmp", vm.qmp_socket, "--qga", vm.qga_socket)
        snapshot = cli.run("backup", NAME, "--audit", "none").json["snapshot"]
        vm.quit()
        for number in range(runs):
            began = time.monotonic()
            vm.start()
            theirs.append(_answered(vm.qga_socket, began))
            vm.quit()
            ours.append(_booted(cli, snapshot))
            say(f"boot {number + 1}: {ours[-1]:.1f} s from the backup, {theirs[-1]:.1f} s from the local disk")
    return [figure.of("boot to the agent, Debian", ours, theirs, "the same from its local disk", "s")]


def _booted(cli: Cli, snapshot: str) -> float:
    began = time.monotonic()
    process = cli.start("boot", snapshot)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        return _answered(Path(told["qga"]), began)
    finally:
        process.terminate()
        process.communicate()


def _answered(socket: Path, began: float) -> float:
    while True:
        with contextlib.suppress(errors.Unreachable), Qga(socket, sync_seconds=_SYNC_SECONDS):
            return time.monotonic() - began
        assert time.monotonic() - began < debian.BOOT_SECONDS
        time.sleep(0.1)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="headstart-boots-") as folder:
        for each in run(Path(folder, "work"), 3, print):
            print(f"{each.name}: {each.ours} s, {each.peer} s, ratio {each.ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
