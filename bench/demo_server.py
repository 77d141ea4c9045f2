"""``make demo-server``: a server, two tenants, a host of each with a real VM that writes, and what a browser shows.

::

    server      two tenants, a policy that backs up every minute
    two hosts   join, get the policy, back up into the server while their guests write
    restore     of each tenant's newest snapshot from the server, every byte compared with its point in time
    browser     overview, a VM's page, files of a snapshot; another tenant's page, which is not there

Leaves screenshots in build/demo-server. ``--stay``: all of it runs on until Ctrl-C, to be looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import proof, shots
from tests.kit import disks, workloads
from tests.kit.cli import Cli
from tests.kit.disks import MIB
from tests.kit.server import PASSWORD, Server, Tenant
from tests.kit.vm import Vm

FOLDER = Path(__file__).parents[1] / "build" / "demo-server"
WORK = FOLDER / "work"
SIZE = 96 * MIB
POLICY = """\
schedule = {calendar = "minutely", timezone = "UTC"}
head_start = {interval = "5s"}
# This machine emulates both guests, and is never idle.
load = {low = 0.99, high = 1.0}
retention = {keep_last = 10}
"""
#: Of each VM, before anything is looked at.
BACKUPS = 3
WAIT_SECONDS = 600.0


@dataclass(slots=True)
class Host:
    """A machine of a tenant's, its VM, and its daemon."""

    tenant: Tenant
    name: str
    vm: Vm
    cli: Cli
    daemon: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)

    def snapshots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tenant.admin.get("/v1/snapshots")
        return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stay", action="store_true")
    given = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    say = _teller()
    try:
        with contextlib.ExitStack() as stack:
            say("starting a server with two tenants")
            server = stack.enter_context(Server(WORK / "server", anew=True))
            hosts = [stack.enter_context(_host(server, tenant, name)) for tenant, name in NAMES.items()]
            for host in hosts:
                say(f"{host.name} has joined for {host.tenant.name}; its VM writes, and is backed up each minute")
            _wait(lambda: all(len(host.snapshots()) >= BACKUPS for host in hosts), "the backups of both hosts")
            for host in hosts:
                say(f"{host.tenant.name}: {_told(host)}")
                say(f"  restored from the server, every byte compared: {_prove(host)}")
            found = shots.take(server, hosts[0].tenant, hosts[1].tenant, FOLDER)
            for path in found:
                say(f"screenshot {path.relative_to(FOLDER.parents[1])}")
            if given.stay:
                logins = ", ".join(f"{host.tenant.name}-admin" for host in hosts)
                say(f"{server.identity.url} runs until Ctrl-C: log in as {logins} with the password {PASSWORD!r}")
                with contextlib.suppress(KeyboardInterrupt):
                    while True:
                        time.sleep(3600)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    return 0


NAMES = {"north": "alpha", "south": "beta"}


@contextlib.contextmanager
def _host(server: Server, tenant_name: str, name: str) -> Iterator[Host]:
    tenant = server.tenant(tenant_name)
    tenant.repository()
    tenant.admin.put("/v1/policies/minutely", {"text": POLICY})
    tenant.admin.put("/v1/assignments", {"policy": "minutely"})
    folder = WORK / name
    files = folder / "files"
    files.mkdir(parents=True)
    (files / "readme.txt").write_text(f"A file of {tenant_name}'s.\n")
    system = disks.Disk(disks.make_ext4(folder / "system.qcow2", SIZE, "qcow2", files=files), "qcow2", "system")
    data = disks.Disk(disks.make_filled(folder / "data.qcow2", SIZE, "qcow2"), "qcow2", "data")
    cli = Cli(folder / "host", password=f"the password of {tenant_name}")
    cli.environment["HEADSTART_REPOSITORY"] = f"{server.identity.url}/main"
    with Vm((system, data)) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        cli.run("join", server.identity.url, tenant.join_token(), "--name", name)
        cli.run("init")
        cli.run("vm", "add", f"{name}-web", "--qmp", vm.qmp_socket, "--qga", vm.qga_socket, "--agent", vm.agent_socket)
        host = Host(tenant, name, vm, cli)
        regions = [
            workloads.Region("/mnt/churn", 0, 8 * MIB),
            workloads.Region(vm.device("data"), 16 * MIB, 16 * MIB),
        ]
        with workloads.churn(vm.guest, regions, rate=1.0 * MIB, write_size=16384, sync_every=4), _daemon(cli):
            yield host


@contextlib.contextmanager
def _daemon(cli: Cli) -> Iterator[None]:
    with open(cli.scratch.parent / "daemon.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headstart", "run"],
            env=cli.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _told(host: Host) -> str:
    newest = host.snapshots()[0]
    return (
        f"{len(host.snapshots())} snapshots; the newest: changed {newest['changed_bytes'] / MIB:.1f} MiB,"
        f" residue {newest['residue_bytes'] / MIB:.1f} MiB, window {newest['window_seconds']:.2f} s"
    )


def _prove(host: Host) -> str:
    """One more backup, whose point in time another reader copies while it stands; what is restored is the same."""
    folder = host.cli.scratch.parent / "proof"
    folder.mkdir()
    hook = proof.copying_hook(folder)
    made = host.cli.run("backup", f"{host.name}-web", "--audit", "all", "--hook", hook).json
    host.cli.run("restore", made["snapshot"], folder / "restored", "--format", "raw")
    return f"{proof.check_audited(folder / 'restored', folder) / MIB:.0f} MiB are identical"


def _wait(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come within {WAIT_SECONDS:.0f} s")
        time.sleep(1.0)


def _teller() -> Callable[[str], None]:
    began = time.monotonic()
    return lambda text: print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
