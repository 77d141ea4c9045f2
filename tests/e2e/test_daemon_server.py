"""A real VM whose host has joined a real server: its policies, backups whatever becomes of it, restores by order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hosted import Hosted
from tests.e2e.rig import NAME, Rig
from tests.e2e.test_agent import wait_for_agentd
from tests.kit import compare, disks, workloads
from tests.kit.server import Server, Tenant
from tests.kit.vm import Vm
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
SIZE = 48 * MIB
QUIET = 24 * MIB
HURRY = {"headstart.host.liaison:AWAY_SECONDS": 1.0, "headstart.host.liaison:AWAY_AT_MOST": 2.0}
POLICY = """
audit = "all"
[schedule]
calendar = "{calendar}"
timezone = "UTC"
[head_start]
interval = "5s"
[load]
latency = "1h"
"""
OFTEN, NEVER = "*:*:0/15", "2090-01-01"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("disks")
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", SIZE, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data", interface="virtio-scsi"),
    )
    with Vm(chosen) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Iterator[Rig]:
    wait_for_agentd(machine)
    made = Rig(tmp_path / "rig", machine, agent=True)
    yield made
    made.release()


def joined(server: Server, rig: Rig, name: str) -> tuple[Tenant, Hosted]:
    """A host of a new tenant, whose own configuration says nothing of policies."""
    tenant = server.tenant(name)
    tenant.repository()
    tenant.admin.put("/v1/policies/often", {"text": POLICY.format(calendar=OFTEN)})
    tenant.admin.put("/v1/assignments", {"policy": "often"})
    daemon = Hosted(rig, constants=HURRY)
    daemon.file.write_text(f'[host]\nrestore_into = "{rig.folder / "restores"}"\n')
    (rig.folder / "restores").mkdir()
    daemon.cli.run("join", server.identity.url, tenant.join_token(), "--name", "alpha")
    return tenant, daemon


def stop_backups(tenant: Tenant, daemon: Hosted) -> None:
    """Nothing is due any longer; what is under way comes to its end."""
    tenant.admin.put("/v1/policies/often", {"text": POLICY.format(calendar=NEVER)})
    daemon.wait(lambda: daemon.status()["due"] is None or daemon.status()["due"] > 3e9)
    daemon.wait(lambda: daemon.status()["doing"] is None)


def order(tenant: Tenant, path: str, **wanted: Any) -> dict[str, Any]:
    """How it ended."""
    given = tenant.admin.post(path, wanted)["id"]
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(tenant.admin.get(f"/v1/orders/{given}"))
        return found["state"] not in ("waiting", "taken")

    wait_until(over, 90)
    assert found["state"] == "done", found
    result: dict[str, Any] = found["result"]
    return result


def known(tenant: Tenant) -> set[str]:
    return {each["id"] for each in tenant.admin.get("/v1/snapshots")}


def test_backups_go_on_while_the_server_is_away_and_are_known_when_it_is_back(
    machine: Vm, server: Server, rig: Rig
) -> None:
    tenant, daemon = joined(server, rig, "away")
    regions = [workloads.Region("/mnt/churn", 0, 8 * MIB), workloads.Region(machine.device("data"), 4 * MIB, 8 * MIB)]
    with daemon:
        with workloads.churn(machine.guest, regions, rate=2 * MIB, write_size=BLOCK // 4, sync_every=4):
            daemon.start()
            daemon.wait_backups(1)
            assert daemon.status()["policy"] == "often"
            daemon.wait(lambda: known(tenant) >= set(rig.snapshots()[:1]))
            server.kill()
            daemon.wait_said("event=server-away")
            count = len(rig.snapshots())
            daemon.wait_backups(count + 2)
            assert daemon.cli.run("status").json["server"]["state"] == "away"
            server.start()
            daemon.wait_said("event=connected", count=2)
            daemon.wait(lambda: len(known(tenant)) > count + 1 and known(tenant) <= set(rig.snapshots()))
        stop_backups(tenant, daemon)
        daemon.wait(lambda: known(tenant) == set(rig.snapshots()))
        [vm] = tenant.admin.get("/v1/vms")

        def told() -> int:
            """Backups that went well, as the server has them; a run is told of after its snapshot."""
            runs = tenant.admin.get(f"/v1/vms/{vm['id']}/runs?since=0")
            return sum(run["verb"] == "backup" and not run["error"] for run in runs)

        daemon.wait(lambda: told() == len(daemon.runs("backup")))
        # What is ordered is done, and what is restored is what was there.
        machine.guest.write(machine.device("data"), QUIET, 2 * MIB, seed="ordered")
        machine.guest.run("sync", timeout=20)
        made = order(tenant, f"/v1/vms/{vm['id']}/orders", kind="backup")["snapshot"]
        daemon.wait(lambda: made in known(tenant))
        wanted = {"kind": "restore", "snapshot": made, "format": "raw", "disks": ["dev-data"]}
        done = order(tenant, f"/v1/hosts/{vm['host']}/orders", **wanted)
        [disk] = done["disks"]
        compare.assert_identical(Path(disk["path"]), path_of(machine, "data"))
        daemon.stop()
    rig.assert_tidy()


def path_of(machine: Vm, name: str) -> Path:
    return next(Path(disk.path) for disk in machine.disks if disk.name == name)


def test_a_repository_at_the_server(machine: Vm, server: Server, rig: Rig) -> None:
    """Nobody names one: it is that of the server. The guest writes meanwhile, the server is killed in the middle."""
    tenant, daemon = joined(server, rig, "store")
    for environment in (daemon.environment, daemon.cli.environment):
        environment.pop("HEADSTART_REPOSITORY", None)
    url = f"{server.identity.url}/main"
    daemon.cli.run("--repository", url, "init")
    regions = [workloads.Region("/mnt/churn", 0, 8 * MIB), workloads.Region(machine.device("data"), 4 * MIB, 8 * MIB)]
    with daemon:
        with workloads.churn(machine.guest, regions, rate=2 * MIB, write_size=BLOCK // 4, sync_every=4):
            daemon.start()
            daemon.wait_backups(1, 120)
            server.kill()
            daemon.wait_said("event=server-away")
            server.start()
            daemon.wait_backups(2, 120)
        stop_backups(tenant, daemon)
        [vm] = tenant.admin.get("/v1/vms")
        machine.guest.write(machine.device("data"), QUIET, 2 * MIB, seed="stored")
        machine.guest.run("sync", timeout=20)
        made = order(tenant, f"/v1/vms/{vm['id']}/orders", kind="backup")["snapshot"]
        daemon.wait(lambda: made in known(tenant))
        assert tenant.admin.get(f"/v1/snapshots/{made}")["place"] is None
        daemon.stop()
    folder = rig.folder / "by-hand"
    daemon.cli.run("--repository", url, "restore", made, folder, "--disk", "dev-data", "--format", "raw")
    compare.assert_identical(folder / "dev-data.raw", path_of(machine, "data"))
    assert daemon.cli.run("--repository", url, "verify").json["snapshots"] >= 3
    assert vm["name"] == NAME
    rig.assert_tidy()
