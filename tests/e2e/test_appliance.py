"""Rounds read by another process over TLS: every byte right, whoever of the two vanishes, and lies are found."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.appliance import keys, work
from headstart.appliance.evidence import Evidence
from headstart.backup.transport import Transport
from headstart.extents import Extent
from headstart.reading import Piece, Reader
from headstart.state import appliances
from headstart.transfer.pipeline import Pipeline, Stored
from headstart.units import BLOCK_SIZE
from tests.e2e.agents import wait_for_agentd
from tests.e2e.appliances import another_machine, relays, write
from tests.e2e.hosted import hosted
from tests.e2e.rig import NAME, Rig
from tests.kit import appliance, disks, workloads
from tests.kit.cli import Cli
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 96 * MIB + 5 * disks.SECTOR


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("disks")
    chosen = (
        disks.Disk(disks.make_ext4(folder / "system.qcow2", 48 * MIB, "qcow2"), "qcow2", "system"),
        disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data", interface="virtio-scsi"),
    )
    with Vm(chosen) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", machine)
    keys.make(tmp_path / "keys")
    yield made
    made.release()


def test_cycles_of_rounds_through_two_appliances(machine: Vm, rig: Rig, churn: workloads.Churn) -> None:
    with another_machine(rig), another_machine(rig):
        for number in range(2):
            for turn in range(2):
                churn.wait_changed((2 * number + turn) * MIB)
                write(machine, (turn + 1) * MIB, f"{number}{turn}")
                done = rig.precopy(transport=Transport.APPLIANCE)
                assert done.transport == "appliance", done
                assert done.remaining_bytes == 0 and not done.notes, done
                assert done.stored_bytes > 0
            exact = rig.exact_backup()
            assert exact.disk("data").precopied_bytes >= MIB, exact.report
            assert exact.report.audit.mismatched_bytes == 0
    assert not relays()


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """These processes are killed once an appliance has said of first chunks that they are durable."""
    processes: list[int] = []
    claim = Evidence.claim

    def claimed(self: Evidence, whose: str, stored: Sequence[Stored], packs: Sequence[str]) -> None:
        claim(self, whose, stored, packs)
        while processes and any(each.chunk is not None for each in stored):
            os.kill(processes.pop(), signal.SIGKILL)

    monkeypatch.setattr(Evidence, "claim", claimed)
    return processes


def test_the_round_goes_on_elsewhere_when_it_is_killed(machine: Vm, rig: Rig, killing: list[int]) -> None:
    """It has stored some of it: that counts, the host reads the rest."""
    with another_machine(rig) as process:
        killing.append(process.pid)
        done = rig.precopy()
    assert done.transport == "appliance+host" and done.remaining_bytes == 0, done
    assert any("is not used any longer" in note for note in done.notes), done
    with rig.journal() as journal:
        delivered = [journal.delivered_blocks(NAME, rig.called(disk)) for disk in ("system", "data")]
    count = sum(len(found) for each in delivered for found in each.values())
    assert 0 < count * BLOCK_SIZE < done.copied_bytes, done
    rig.exact_backup()


def test_without_the_host_the_rest_remains(machine: Vm, rig: Rig, killing: list[int]) -> None:
    with another_machine(rig) as process:
        killing.append(process.pid)
        done = rig.precopy(transport=Transport.APPLIANCE)
        assert done.transport == "appliance" and done.copied_bytes and done.remaining_bytes, done
        assert any("remains to be copied" in note for note in done.notes), done
        with pytest.raises(errors.Unreachable, match="No appliance can be used"):
            rig.precopy(transport=Transport.APPLIANCE)
    assert rig.precopy().remaining_bytes == 0
    rig.exact_backup()


def test_a_host_that_is_killed_leaves_nothing(machine: Vm, rig: Rig) -> None:
    """The appliance lets go, is there for the next one, and what the host finds of its work it uses."""
    rig.backup()
    cli = Cli(rig.folder)
    with another_machine(rig) as process:
        write(machine, 24 * MIB, "killed")
        killed = cli.start("precopy", "guest", "--appliance", rig.appliances[0])
        deadline = time.monotonic() + 30
        while not relays():
            assert time.monotonic() < deadline and killed.poll() is None, killed.communicate()
            time.sleep(0.01)
        killed.kill()
        killed.communicate()
        while relays():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None
        done = rig.precopy(transport=Transport.APPLIANCE)
        assert done.remaining_bytes == 0 and done.transport == "appliance", done
    rig.exact_backup()


class Lying(Pipeline):
    """Of each fourth block another content is stored."""

    def copy(
        self, disk: str, reader: Reader, extents: Iterable[Extent], progress: Callable[[int], None] = lambda count: None
    ) -> int:
        return super().copy(disk, _False(reader), extents, progress)


class _False:
    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self.size = inner.size

    def read(self, extents: Iterable[Extent]) -> Iterator[Piece]:
        for piece in self._inner.read(extents):
            if piece.data is not None:
                for start in range(0, piece.extent.length, BLOCK_SIZE):
                    if (piece.extent.start + start) // BLOCK_SIZE % 4 == 0:
                        piece.data[start] ^= 1
            yield piece


def test_lies_are_found_and_it_is_used_no_longer(machine: Vm, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.backup()
    monkeypatch.setattr(work, "Pipeline", Lying)
    with appliance.serving(rig.folder.parent / "keys", rig.store) as hired:
        rig.appliances = (hired.address.text,)
        write(machine, 8 * MIB, "lied about")
        assert rig.precopy(transport=Transport.APPLIANCE).remaining_bytes == 0
        made = rig.backup()
        assert made.audit.appliance_mismatched_bytes > 0 and made.audit.agent_mismatched_bytes == 0, made
        assert any(f"the appliance {hired.address.name} delivered false blocks" in note for note in made.notes), made
        write(machine, 2 * MIB, "again")
        done = rig.precopy()
        assert done.transport == "host" and any("is not trusted since" in note for note in done.notes), done
        with rig.journal() as journal:
            assert appliances.trust(journal, hired.address.name) is not None
        monkeypatch.undo()
        write(machine, 2 * MIB, "and again")
        assert rig.precopy(transport=Transport.APPLIANCE).transport == "appliance"
    rig.exact_backup()
    rig.appliances = ()


def test_the_transports_are_compared_and_nothing_is_kept(machine: Vm, rig: Rig, tmp_path: Path) -> None:
    wait_for_agentd(machine)
    with_agent = Rig(tmp_path / "agent", machine, agent=True)
    with another_machine(rig):
        before = sorted(rig.store.list(""))
        cli = Cli(with_agent.folder)
        told = cli.run("bench", "transports", "guest", "--size", "24MiB", "--appliance", rig.appliances[0]).json
        assert sorted(rig.store.list("")) == before
    idle, agent, host, other = told["trials"]
    assert [each["by"] for each in (idle, agent, host)] == ["idle", "agent", "host"] and not other["why"], told
    assert agent["read_bytes"] == host["read_bytes"] == other["read_bytes"] > 20 * MIB, told
    assert all(each["seconds"] > 0 and each["host_cpu_seconds"] is not None for each in told["trials"]), told
    assert other["appliance_cpu_seconds"] > 0 and host["appliance_cpu_seconds"] is None
    with_agent.release()


def ahead(made: dict[str, Any]) -> int:
    """Bytes that a backup had copied ahead."""
    return sum(disk["precopied_bytes"] for disk in made["disks"])


def test_the_daemon_has_its_rounds_read_by_them(machine: Vm, rig: Rig) -> None:
    """And by the host from the moment that none is left."""
    with another_machine(rig) as process, hosted(rig) as daemon:
        appliances = f"appliances = {json.dumps(list(rig.appliances))}"
        daemon.configure(["*:*:0/15"], interval="2s", transports=("appliance", "host"), host=appliances)
        write(machine, 4 * MIB, "daemon")
        daemon.start()
        daemon.wait_said("by=appliance")
        daemon.wait_backups(1)
        # What is written just before a backup is its residue; of five times, not each.
        for number in range(5):
            write(machine, 2 * MIB, f"more {number}")
            daemon.wait_backups(len(daemon.runs("backup")) + 1)
            if max(map(ahead, daemon.runs("backup"))) >= 2 * MIB:
                break
        assert max(map(ahead, daemon.runs("backup"))) >= 2 * MIB
        process.kill()
        write(machine, 4 * MIB, "alone")
        daemon.wait_said("by=host")
        daemon.wait_backups(len(daemon.runs("backup")) + 1)
    assert not relays()
