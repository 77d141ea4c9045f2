"""The daemon over a real VM: rounds, backups at their time, each of them exact, and what else is done meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hosted import Hosted, hosted
from tests.e2e.rig import NAME, Rig
from tests.e2e.test_agent import wait_for_agentd
from tests.kit import disks, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
SIZE = 48 * MIB
#: Nothing else writes here on the disk ``data``.
QUIET = 24 * MIB


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


@pytest.fixture
def churn(machine: Vm) -> Iterator[workloads.Churn]:
    regions = [
        workloads.Region("/mnt/churn", 0, 8 * MIB),
        workloads.Region(machine.device("data"), 4 * MIB, 8 * MIB),
    ]
    with workloads.churn(machine.guest, regions, rate=2 * MIB, write_size=BLOCK // 4, sync_every=4) as running:
        yield running


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Iterator[Rig]:
    wait_for_agentd(machine)
    made = Rig(tmp_path / "rig", machine, agent=True)
    yield made
    made.release()


@pytest.fixture
def daemon(rig: Rig) -> Iterator[Hosted]:
    with hosted(rig) as made:
        yield made


def test_rounds_and_backups_at_their_time_while_the_guest_writes(
    machine: Vm, daemon: Hosted, churn: workloads.Churn
) -> None:
    daemon.configure(["*:*:0/15"])
    daemon.start()
    daemon.wait_said("by=agent")
    shown = daemon.cli.run("status", NAME).json["vms"][0]
    assert set(shown["live"]) == {
        *("policy", "state", "reason", "due", "missed", "remaining_bytes", "deferred_bytes", "load", "marks", "rate"),
        *("missing_sensors", "forecast", "doing"),
    }
    assert shown["live"]["policy"] == "tests" and shown["live"]["due"] % 15 == 0
    assert set(shown["live"]["forecast"]) == {
        *("residue_bytes", "window_seconds", "scratch_bytes", "spool_bytes", "warnings"),
    }
    for number in range(3):
        daemon.wait_backups(number + 1)
        machine.guest.write(machine.device("data"), QUIET, 2 * MIB, seed=number)
    made = daemon.runs("backup")
    assert made[0]["base"] is None and made[1]["base"] == made[0]["snapshot"]
    for each in made:
        late = each["created"] % 15
        assert late < 5, f"{late:.1f} s after its moment"
        assert not any(disk["compared"] for disk in each["disks"])
    for each in made[1:]:
        assert sum(disk["precopied_bytes"] for disk in each["disks"]) >= 2 * MIB, each
    assert len({each["created"] // 15 for each in made}) == len(made), "one for each moment"
    line = next(line for line in daemon.log.splitlines() if "by=agent" in line)
    assert re.search(rf"vm={NAME} round=\d+ copied=\S+ remaining=\S+ took=\S+ by=agent", line), line
    assert re.search(r"event=backup snapshot=\w+ changed=\S+ ahead=\S+ residue=\S+ window=\S+ took=\S+", daemon.log)
