"""A real VM whose host has joined a real server: its policies, backups whatever becomes of it, and what is ordered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import agents
from tests.e2e.boots import guest_at, served_by, wait_gone
from tests.e2e.hosted import Hosted
from tests.e2e.rig import NAME, Rig
from tests.kit import compare, disks, stores, workloads
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
STAGED = "staged"
OFTEN, NEVER = "*:*:0/15", "2090-01-01"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("disks")
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", SIZE, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data", interface="virtio-scsi"),
    )
    with Vm(chosen, extra=("-device", "VGA")) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), anew=True) as running:
        yield running


rig = agents.rig


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


def at_the_server(server: Server, daemon: Hosted) -> str:
    """The host's repository, which is made."""
    for environment in (daemon.environment, daemon.cli.environment):
        environment.pop("HEADSTART_REPOSITORY", None)
    url = f"{server.identity.url}/main"
    daemon.cli.run("--repository", url, "init")
    return url


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
    assert found["state"] == "done", found["result"]
    result: dict[str, Any] = found["result"]
    return result


def booted(tenant: Tenant, host: str, snapshot: str) -> tuple[str, dict[str, Any]]:
    """The order, and how the VM is reached that runs by it."""
    wanted = {"kind": "boot", "snapshot": snapshot, "hours": 1}
    given = tenant.admin.post(f"/v1/hosts/{host}/orders", wanted)["id"]
    wait_until(lambda: "reach" in (tenant.admin.get(f"/v1/orders/{given}")["progress"] or {}))
    reach: dict[str, Any] = tenant.admin.get(f"/v1/orders/{given}")["progress"]["reach"]
    return given, reach


def ended(tenant: Tenant, given: str, state: str) -> dict[str, Any]:
    wait_until(lambda: tenant.admin.get(f"/v1/orders/{given}")["state"] == state)
    result: dict[str, Any] = tenant.admin.get(f"/v1/orders/{given}")["result"]
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
    url = at_the_server(server, daemon)
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


def test_a_restore_point_is_rehearsed_and_booted_by_order(machine: Vm, server: Server, rig: Rig) -> None:
    """The VM really runs, beside the one that it was; nothing of it is left when the order ends, or the daemon dies."""
    tenant = server.tenant("ordered")
    tenant.repository()
    daemon = Hosted(rig, constants=HURRY)
    daemon.file.write_text("[host]\nrehearsals = true\nboots = true\n")
    with rig.journal() as journal:  # other tests rehearse one of the usual name
        journal.add_vm(replace(journal.vm(NAME), name=STAGED))
    daemon.cli.run("join", server.identity.url, tenant.join_token(), "--name", "alpha")
    url = at_the_server(server, daemon)
    machine.guest.write(machine.device("data"), QUIET, MIB, seed="rehearsed")
    truth = machine.guest.hash(machine.device("data"))
    made = daemon.cli.run("--repository", url, "backup", STAGED, "--audit", "0").json["snapshot"]
    with daemon:
        daemon.start()
        daemon.wait(lambda: made in known(tenant))
        [host] = [each["id"] for each in tenant.admin.get("/v1/hosts")]
        order(tenant, f"/v1/hosts/{host}/orders", kind="rehearse", snapshot=made)
        [point] = tenant.admin.get("/v1/snapshots")
        assert point["proof"]["passed"] and point["proof"]["awaited"] == "agent" and point["rehearsed"], point
        unlock = tenant.admin.post("/v1/repositories/main/unlock", {"password": stores.PASSWORD.decode()})["unlock"]
        path = f"/v1/snapshots/{made}/screenshot"
        assert tenant.admin.ask("GET", path, headers={"X-Unlock": unlock}).data.startswith(b"\x89PNG\r\n")

        first, reach = booted(tenant, host, made)
        with guest_at(Path(reach["sockets"]["char-control"])) as guest:
            assert guest.hash(guest.device("data")) == truth
            guest.write(guest.device("data"), 0, MIB, seed="scratch")
        second = tenant.admin.post(f"/v1/hosts/{host}/orders", {"kind": "boot", "snapshot": made})["id"]
        assert "one at a time" in ended(tenant, second, "failed")["error"]
        tenant.admin.delete(f"/v1/orders/{first}")
        assert ended(tenant, first, "done")["ended"] == "It was stopped by order."
        wait_gone(reach["pid"])
        assert not served_by(reach) and not list((rig.scratch / "ordered").glob("*"))

        third, reach = booted(tenant, host, made)
        daemon.kill()
        wait_gone(reach["pid"])
        daemon.start()
        assert "started anew" in ended(tenant, third, "failed")["error"]
        daemon.wait(lambda: not list((rig.scratch / "ordered").glob("*")) and not served_by(reach))

        fourth, reach = booted(tenant, host, made)
        daemon.stop()
        assert not Path(f"/proc/{reach['pid']}").exists() and not list((rig.scratch / "ordered").glob("*"))
        daemon.start()
        assert ended(tenant, fourth, "done")["ended"] == "Headstart was stopped on the host."
        daemon.stop()
    assert machine.guest.hash(machine.device("data")) == truth
    rig.assert_tidy()
    rig.release(STAGED)
