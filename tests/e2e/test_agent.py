"""The agent in the guest reads the rounds: every byte right, whatever happens to it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup.transport import Transport
from tests.e2e import agents
from tests.e2e.agents import agentd, kill, wait_for_agentd
from tests.e2e.rig import Rig
from tests.kit import disks, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 96 * MIB + 5 * disks.SECTOR
#: Nothing else writes here on the disk ``data``.
QUIET = 48 * MIB


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """virtio-blk qcow2 with a file system, virtio-scsi raw, and a blank disk."""
    folder = tmp_path_factory.mktemp("disks")
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", 48 * MIB, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data", interface="virtio-scsi"),
        disks.Disk(disks.make_empty(folder / "blank.qcow2", 12 * MIB, "qcow2"), "qcow2", "blank"),
    )
    with Vm(chosen) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


rig = agents.rig


class Halfway:
    """Shows no progress; once some of it is copied, something happens to the agent."""

    def __init__(self, event: Callable[[], object]) -> None:
        self._event: Callable[[], object] | None = event

    def __call__(self, what: str, done: int, total: int) -> None:
        event = self._event
        if done > 4 * MIB and event is not None:
            self._event = None
            event()


def write(vm: Vm, length: int, seed: str) -> None:
    vm.guest.write(vm.device("data"), QUIET, length, seed=seed)


def test_cycles_of_rounds_through_the_agent(machine: Vm, rig: Rig, churn: workloads.Churn) -> None:
    for number in range(3):
        for turn in range(2):
            churn.wait_changed((2 * number + turn) * MIB)
            write(machine, (turn + 1) * MIB, f"{number}{turn}")
            done = rig.precopy(transport=Transport.AGENT)
            assert done.transport == "agent", done
            assert done.remaining_bytes == 0
        exact = rig.exact_backup()
        assert exact.disk("data").precopied_bytes >= MIB, exact.report
        assert exact.report.audit.mismatched_bytes == 0


def test_a_blank_disk_is_read_from_outside_and_the_reason_told(machine: Vm, rig: Rig) -> None:
    # What file systems still have to write would come in between.
    machine.guest.run("sync")
    rig.precopy()
    machine.guest.write(machine.device("blank"), MIB, MIB, seed=None, byte=0)
    done = rig.precopy()
    assert done.transport == "host", done
    assert any("dev-blank" in note and "blank:" in note for note in done.notes), done
    assert done.remaining_bytes == 0


def test_an_agent_that_vanishes_costs_the_rest_of_the_round(machine: Vm, rig: Rig, churn: workloads.Churn) -> None:
    rig.precopy(transport=Transport.HOST)
    rig.backup()
    write(machine, 40 * MIB, "long")
    done = rig.precopy(Halfway(lambda: kill(machine)), Transport.AGENT)
    assert done.remaining_bytes, done
    assert any("remains to be copied" in note for note in done.notes), done
    again = rig.precopy()
    assert again.remaining_bytes == 0
    rig.exact_backup()


def throttle(vm: Vm, rate: int) -> None:
    """What the guest may read a second of its disk ``data``; 0: all it wants."""
    vm.qmp("human-monitor-command", command_line=f"block_set_io_throttle dev-data 0 {rate} 0 0 0 0")


def test_a_slow_agent_is_waited_for(machine: Vm, rig: Rig) -> None:
    """Its disk gives 4 MiB/s; nothing of the round is lost, and no other disk waits."""
    rig.backup()
    write(machine, 12 * MIB, "slow")
    throttle(machine, 4 * MIB)
    done = rig.precopy(transport=Transport.AGENT)
    throttle(machine, 0)
    assert done.transport == "agent" and done.remaining_bytes == 0 and done.seconds > 2, done
    rig.exact_backup()


def test_it_takes_little_and_nothing_while_nobody_asks(machine: Vm, rig: Rig) -> None:
    """With a host at the other end of its port that is silent, and without one."""
    rig.precopy(transport=Transport.AGENT)
    process = re.findall(r"\d+", agentd(machine))[0]
    peak = re.search(r"VmHWM:\s+(\d+) kB", machine.guest.run(f"cat /proc/{process}/status").output)
    assert peak and int(peak.group(1)) < 64 * 1024

    def ticks() -> int:
        fields = machine.guest.run(f"cat /proc/{process}/stat").output.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(4)
    alone = ticks() - before
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(str(machine.agent_socket))
        time.sleep(1)
        before = ticks()
        time.sleep(4)
        silent = ticks() - before
    # Hundredths of a second; a loop that never rests would take 400.
    assert alone < 40 and silent < 40, (alone, silent)


def test_a_stopped_agent_is_given_up(machine: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.guest.channel.SILENCE_SECONDS", 2.0)
    rig.backup()
    write(machine, 40 * MIB, "stopped")
    done = rig.precopy(Halfway(lambda: kill(machine, "STOP")), Transport.AGENT)
    assert any("has not answered" in note for note in done.notes), done
    with pytest.raises(errors.Unreachable):
        rig.precopy(transport=Transport.AGENT)
    outside = rig.precopy()
    assert outside.transport == "host" and outside.remaining_bytes == 0, outside
    kill(machine, "CONT")
    rig.exact_backup()


def test_a_guest_that_is_reset_in_the_middle_of_a_round(tmp_path: Path) -> None:
    chosen = (disks.Disk(disks.make_filled(tmp_path / "data.raw", SIZE), "raw", "data"),)
    with Vm(chosen) as vm:
        wait_for_agentd(vm)
        rig = Rig(tmp_path / "rig", vm, agent=True)
        rig.backup()
        write(vm, 40 * MIB, "reset")
        done = rig.precopy(Halfway(lambda: vm.qmp("system_reset")), Transport.AGENT)
        vm.wait_ready()
        wait_for_agentd(vm)
        assert done.remaining_bytes, done
        write(vm, MIB, "and again")
        assert rig.precopy(transport=Transport.AGENT).remaining_bytes == 0
        rig.exact_backup()


def test_a_disk_in_an_iothread_gets_its_head_start_through_the_agent(tmp_path: Path) -> None:
    """It cannot be read from outside while it runs; a glimpse of a few blocks proves the device."""
    chosen = (
        disks.Disk(disks.make_filled(tmp_path / "data.qcow2", SIZE, "qcow2"), "qcow2", "data", iothread=True),
        disks.Disk(disks.make_ext4(tmp_path / "system.raw", 48 * MIB), "raw", "system", interface="virtio-scsi"),
    )
    with Vm(chosen) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        wait_for_agentd(vm)
        rig = Rig(tmp_path / "rig", vm, agent=True)
        for seed in ("first", "second"):
            write(vm, 8 * MIB, seed)
            done = rig.precopy()
            assert done.transport == "agent", done
            exact = rig.exact_backup()
            assert exact.disk("data").precopied_bytes >= 8 * MIB, exact.report
            assert exact.disk("data").residue_bytes < MIB, exact.report


def test_the_agent_freezes_where_there_is_no_qga(machine: Vm, tmp_path: Path) -> None:
    wait_for_agentd(machine)
    rig = Rig(tmp_path / "rig", machine, qga=False, agent=True)
    exact = rig.exact_backup()
    assert exact.report.consistency == "filesystem", exact.report
    rig.release()


def test_two_guests_at_once(tmp_path: Path) -> None:
    """Disks of the same size and the same serial: no block of the one gets into the other's backup."""
    with contextlib.ExitStack() as stack:
        rigs = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            image = disks.make_filled(tmp_path / name / "data.raw", SIZE, seed=ord(name[0]))
            vm = stack.enter_context(Vm((disks.Disk(image, "raw", "data"),)))
            wait_for_agentd(vm)
            rigs.append(Rig(tmp_path / name / "rig", vm, agent=True))
        reports: list[str] = []

        def cycle(rig: Rig) -> None:
            reports.append(rig.precopy(transport=Transport.AGENT).transport)
            write(rig.vm, 4 * MIB, str(rig.folder))
            reports.append(rig.precopy(transport=Transport.AGENT).transport)
            rig.exact_backup()

        threads = [threading.Thread(target=cycle, args=(rig,)) for rig in rigs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reports == ["agent"] * 4


def test_the_channel_of_another_guest_proves_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        machines = []
        for name in ("mine", "other"):
            (tmp_path / name).mkdir()
            image = disks.make_filled(tmp_path / name / "data.raw", SIZE, seed=ord(name[0]))
            machines.append(stack.enter_context(Vm((disks.Disk(image, "raw", "data"),))))
        mine, other = machines
        wait_for_agentd(other)
        rig = Rig(tmp_path / "rig", mine, agent=True)
        (rig.folder / "agent").unlink()
        (rig.folder / "agent").symlink_to(other.agent_socket)
        done = rig.precopy()
        assert done.transport == "host"
        assert any("cannot be proved" in note for note in done.notes), done
        rig.exact_backup()
