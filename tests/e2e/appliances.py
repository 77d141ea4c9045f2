"""Another machine that reads rounds, and what brings disks to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from headstart.appliance import keys
from headstart.units import MIB
from tests.e2e.rig import Rig
from tests.kit.cli import Cli
from tests.kit.ports import free_port
from tests.kit.vm import Vm

#: Nothing else writes here on the disk ``data``.
QUIET = 48 * MIB


@contextlib.contextmanager
def another_machine(rig: Rig) -> Iterator[subprocess.Popen[str]]:
    """``headstart appliance``, which the rig uses meanwhile."""
    folder = rig.folder.parent
    cli = Cli(folder / f"other{len(rig.appliances)}")
    cli.environment["HEADSTART_REPOSITORY"] = str(rig.folder / "repository")
    port = free_port()
    process = cli.start("appliance", "--listen", f"127.0.0.1:{port}", "--keys", folder / "keys" / keys.APPLIANCE)
    before = rig.appliances
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["port"] == port
        rig.appliances = (*before, f"tcp:127.0.0.1:{port},keys={folder / 'keys' / keys.HOST}")
        yield process
    finally:
        rig.appliances = before
        process.terminate()
        process.communicate(timeout=30)


def write(vm: Vm, length: int, seed: str) -> None:
    vm.guest.write(vm.device("data"), QUIET, length, seed=seed)


def relays() -> list[str]:
    """What brings disks to appliances, on this machine; both ends."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"relay_process.run" in (words := path.read_bytes()):
                found.append(words.decode())
    return found
