"""The daemon over a real VM: rounds, backups at their time, each of them exact, and what else is done meanwhile."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e import agents
from tests.e2e.agents import kill, wait_for_agentd
from tests.e2e.hosted import Hosted, hosted
from tests.e2e.rig import NAME, Rig
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


rig = agents.rig


@pytest.fixture
def daemon(rig: Rig) -> Iterator[Hosted]:
    with hosted(rig) as made:
        yield made


def test_rounds_and_backups_at_their_time_while_the_guest_writes(
    machine: Vm, daemon: Hosted, churn: workloads.Churn
) -> None:
    daemon.configure(["*:*:0/20"])
    daemon.start()
    daemon.wait_said("by=agent")
    shown = daemon.cli.run("status", NAME).json["vms"][0]
    assert set(shown["live"]) == {
        *("policy", "state", "reason", "due", "missed", "remaining_bytes", "deferred_bytes", "load", "marks", "rate"),
        *("missing_sensors", "forecast", "doing"),
    }
    assert shown["live"]["policy"] == "tests" and shown["live"]["due"] % 20 == 0
    assert set(shown["live"]["forecast"]) == {
        *("residue_bytes", "window_seconds", "scratch_bytes", "spool_bytes", "warnings"),
    }
    for number in range(3):
        daemon.wait_backups(number + 1)
        machine.guest.write(machine.device("data"), QUIET, 2 * MIB, seed=number)
    made = daemon.runs("backup")
    assert made[0]["base"] is None and made[1]["base"] == made[0]["snapshot"]
    for each in made:
        late = each["created"] % 20
        assert late < 5, f"{late:.1f} s after its moment"
        assert not any(disk["compared"] for disk in each["disks"])
    for each in made[1:]:
        # Of 2 MiB at least; a machine with much else to do leaves some to the residue.
        assert sum(disk["precopied_bytes"] for disk in each["disks"]) >= MIB // 2, each
    assert len({each["created"] // 20 for each in made}) == len(made), "one for each moment"
    line = next(line for line in daemon.log.splitlines() if "by=agent" in line)
    assert re.search(rf"vm={NAME} round=\d+ copied=\S+ remaining=\S+ took=\S+ by=agent", line), line
    assert re.search(r"event=backup snapshot=\w+ changed=\S+ ahead=\S+ residue=\S+ window=\S+ took=\S+", daemon.log)


@pytest.fixture
def far(machine: Vm, daemon: Hosted) -> Hosted:
    """No backup is due for hours; a slow round of the whole disks can begin at any time."""
    daemon.configure(daemon.later(), rate="2MiB/s", interval="1h")
    return daemon


def test_a_backup_by_hand_goes_through_the_daemon(far: Hosted, churn: workloads.Churn) -> None:
    """It ends the round, and comes back with its report; and so after it."""
    far.start()
    far.wait(far.copying)
    for _ in range(2):
        done = far.back_up()
        assert done["snapshot"] == far.rig.snapshots()[-1] and done["consistency"] == "filesystem"
    assert 'reason="it was ordered"' in far.log and 'halted="a backup was ordered"' in far.log
    assert len(far.rig.snapshots()) == 2


def test_other_commands_beside_the_daemon(far: Hosted) -> None:
    """While it copies they say who has the VM; while it waits they work."""
    far.start()
    far.wait(far.copying)
    refused = far.cli.run("precopy", NAME, expect=11)
    assert f"process {far.pid}" in refused.error["error"]["message"], refused.error
    assert far.cli.run("vm", "show", NAME, expect=None).status in (0, 11, 20)
    assert far.cli.run("vm", "list").json["vms"][0]["name"] == NAME
    assert far.cli.run("status", NAME).json["vms"][0]["live"]["doing"]["verb"] == "precopy"
    far.configure(far.later(), transports=())
    far.reload()
    far.wait(lambda: far.status()["doing"] is None)
    assert far.cli.run("vm", "show", NAME).json["disks"]
    assert far.cli.run("precopy", NAME).json["remaining_bytes"] == 0
    assert far.cli.run("run", "--config", far.file, expect=11).error["error"]["kind"] == "Locked"


def test_pause_resume_and_cancel(far: Hosted) -> None:
    far.start()
    far.wait(far.copying)
    assert far.cli.run("cancel", NAME).json == {"vm": NAME, "cancelled": True}
    far.wait(lambda: far.status()["doing"] is None, 3)
    assert far.status()["state"] == "failed"
    far.kill()
    far.start()
    far.wait(far.copying)
    assert far.cli.run("pause", NAME).json == {"vm": NAME, "paused": True}
    far.wait(lambda: far.status()["state"] == "paused", 3)
    assert far.runs("precopy")[-1]["halted"] == "paused by its owner"
    far.stop()
    far.start()
    far.wait(lambda: far.status()["state"] == "paused")
    assert far.cli.run("resume", NAME).json == {"vm": NAME, "paused": False}
    far.wait(far.copying)


def test_it_is_stopped_in_a_round_at_once(far: Hosted) -> None:
    far.start()
    far.wait(far.copying)
    took = far.stop()
    assert took < 3, took
    assert not far.rig.leftovers()


def test_it_is_stopped_in_a_window(machine: Vm, far: Hosted, tmp_path: Path) -> None:
    """The backup lets go of its point in time by itself, and is published; nothing comes after it."""
    standing = tmp_path / "standing"
    hook = f"before-release=touch {standing} && sleep 2 && {far.hook}"

    def stop_in_a_window() -> None:
        standing.unlink(missing_ok=True)
        with far.cli.start("backup", NAME, "--audit", "all", "--hook", hook) as command:
            far.wait(standing.exists)
            far.stop()
            command.wait(30)

    far.start()
    far.wait(far.copying)
    stop_in_a_window()
    machine.guest.run("date > /mnt/now && sync", timeout=10)
    assert len(far.rig.snapshots()) == 1
    machine.quit()
    far.start()
    stop_in_a_window()
    machine.start()
    machine.guest.mount(machine.device("system") + "1", "/mnt")
    wait_for_agentd(machine)
    assert len(far.rig.snapshots()) == 2
    # What reads the images is a process that was told to end as well.
    assert "begun again" not in far.log, far.log[-3000:]


def test_what_systemd_is_told(far: Hosted, tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(place))
        told.settimeout(10)

        def wait_told(word: str) -> str:
            while word not in (message := told.recv(4096).decode()).split("\n"):
                pass
            return message

        far.environment |= {"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "1000000"}
        far.start()
        assert "STATUS=1 VMs protected" in wait_told("READY=1")
        began = time.monotonic()
        for _ in range(4):
            wait_told("WATCHDOG=1")
        assert time.monotonic() - began < 4
        far.reload()
        assert "MONOTONIC_USEC=" in wait_told("RELOADING=1")
        wait_told("READY=1")
        far.signal(signal.SIGTERM)
        wait_told("STOPPING=1")
        far.wait(lambda: not far.running)


def test_a_policy_changed_in_the_middle_of_a_round(far: Hosted) -> None:
    """A lower limit holds within two seconds; a mistake changes nothing, and is named; without a head start the round
    ends."""
    calendar = far.later()
    far.configure(calendar, rate="8MiB/s", interval="1h")
    far.start()
    far.wait(lambda: far.copying(least=3 * MIB))
    far.configure(calendar, rate="1MiB/s", interval="1h")
    far.reload()
    time.sleep(2)
    assert _rate(far, 3.0) < 1.5 * MIB
    good = far.file.read_text()
    far.file.write_text(good.replace("audit = ", "audti = "))
    far.reload()
    far.wait_said("The configuration stays as it was")
    line = good.split("audit = ")[0].count("\n") + 1
    assert f"{far.file}:{line}: policy.tests.audti: there is no such key" in far.log
    assert far.copying() and 0 < _rate(far, 2.0) < 1.5 * MIB
    far.configure(calendar, transports=())
    far.reload()
    far.wait(lambda: far.status()["doing"] is None, 3)
    assert far.runs("precopy")[-1]["halted"] == "the policy was changed"
    far.back_up()


def _rate(daemon: Hosted, seconds: float) -> float:
    began, before = time.monotonic(), daemon.status()["doing"]["done"]
    time.sleep(seconds)
    return float((daemon.status()["doing"]["done"] - before) / (time.monotonic() - began))


def test_an_agent_that_vanishes_in_a_round(machine: Vm, far: Hosted, churn: workloads.Churn) -> None:
    """It costs the rest of that round. The next one has it again."""
    far.start()
    far.wait(lambda: far.copying(least=3 * MIB))
    kill(machine)
    far.wait_said("remains to be copied", 10)
    wait_for_agentd(machine)
    far.configure(far.later())
    far.reload()
    far.wait(
        lambda: any(done["copied_bytes"] > 16 * MIB and done["transport"] == "agent" for done in far.runs("precopy"))
    )
    far.back_up()
    assert sum(disk["precopied_bytes"] for disk in far.runs("backup")[-1]["disks"]) > 16 * MIB


def test_a_guest_that_is_reset_and_a_qemu_that_is_restarted(machine: Vm, far: Hosted) -> None:
    """The daemon goes on by itself: after a reset with what it has; after a restart the raw disk, whose bitmaps went
    with QEMU, is compared."""
    far.configure(far.later())
    far.start()
    for event, compared in ((machine.reset, set()), (machine.restart, {"dev-data"}), (None, set())):
        count = len(far.runs("precopy"))
        far.wait(lambda: len(far.runs("precopy")) > count)  # noqa: B023
        if event is not None:
            event()
            machine.guest.mount(machine.device("system") + "1", "/mnt")
            wait_for_agentd(machine)
        machine.guest.write(machine.device("data"), QUIET, MIB, seed=str(event))
        count = len(far.runs("precopy"))
        far.wait(lambda: any(done["transport"] == "agent" for done in far.runs("precopy")[count:]))  # noqa: B023
        done = far.back_up()
        assert {disk["name"] for disk in done["disks"] if disk["compared"]} == compared, done


def test_a_clock_that_jumps(machine: Vm, daemon: Hosted) -> None:
    """A day ahead and back, and again: one backup for each moment that is new."""
    hour = 3600.0
    daemon.configure([f"{datetime.fromtimestamp(time.time() + 12 * hour, UTC):%H:%M:%S}"])
    daemon.start()
    daemon.wait(lambda: daemon.runs("precopy"))
    for ahead, expected in ((13, 1), (-2, 1), (0, 1), (14, 1), (37, 2), (13, 2)):
        daemon.set_clock(ahead * hour)
        daemon.wait(lambda: len(daemon.runs("backup")) >= expected)  # noqa: B023
        time.sleep(1.5)
        assert len(daemon.runs("backup")) == expected, ahead
        assert daemon.status()["state"] != "failed"
