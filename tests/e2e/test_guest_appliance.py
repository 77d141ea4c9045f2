"""Rounds read by another guest of this host, into which the disks are plugged; nothing stays there, whoever dies."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from headstart.appliance.evidence import Evidence
from headstart.backup.transport import Transport
from tests.e2e.appliances import relays, write
from tests.e2e.rig import Rig
from tests.kit import applianceguest, disks
from tests.kit.applianceguest import ApplianceVm
from tests.kit.ports import free_port
from tests.kit.vm import Vm

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(bool(applianceguest.missing()), reason=applianceguest.missing()),
]

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
        yield vm


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, machine: Vm) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("rig"), machine)
    yield made
    made.release()


@pytest.fixture(scope="module")
def reader(rig: Rig) -> Iterator[ApplianceVm]:
    with ApplianceVm(rig.folder, rig.folder / "repository", free_port()) as vm:
        vm.serve()
        rig.appliances = (vm.address,)
        yield vm


def plugged(reader: ApplianceVm) -> list[str]:
    """What of ours is in the appliance's QEMU: nodes and devices."""
    nodes = [node["node-name"] for node in reader.qmp("query-named-block-nodes", flat=True)]
    devices = [each.get("qdev", "") for each in reader.qmp("query-block")]
    return [each for each in (*nodes, *devices) if "hsplug" in each]


def assert_nothing_left(reader: ApplianceVm) -> None:
    assert plugged(reader) == []
    assert reader.guest.run("ls /sys/class/block | grep -E '^(sd|vd)'", check=False).output == ""


def test_rounds_by_a_guest_are_exact(machine: Vm, rig: Rig, reader: ApplianceVm) -> None:
    """Also of blocks that it has read before: nothing is read from its page cache."""
    for number in range(2):
        for turn in range(2):
            write(machine, (2 - turn) * MIB, f"{number}{turn}")
            done = rig.precopy(transport=Transport.APPLIANCE)
            assert done.transport == "appliance" and done.remaining_bytes == 0 and not done.notes, done
            assert_nothing_left(reader)
            assert not relays(), "no byte goes through a relay"
        exact = rig.exact_backup()
        assert exact.disk("data").precopied_bytes >= MIB, exact.report


@pytest.fixture
def at_first_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Called once when the appliance has stored first chunks."""
    calls: list[object] = []
    claim = Evidence.claim

    def claimed(self: Evidence, whose: str, stored: list, packs: list) -> None:  # type: ignore[type-arg]
        claim(self, whose, stored, packs)
        while calls and any(each.chunk is not None for each in stored):
            calls.pop()()  # type: ignore[operator]

    monkeypatch.setattr(Evidence, "claim", claimed)
    yield calls


def test_a_host_that_is_killed_is_put_right(machine: Vm, rig: Rig, reader: ApplianceVm) -> None:
    """Its disk stays in the appliance until the next round; the appliance itself lets go."""
    rig.backup()
    write(machine, 40 * MIB, "killed")
    killed = rig.cli.start("precopy", "guest", "--appliance", rig.appliances[0])
    deadline = time.monotonic() + 60
    while not plugged(reader):
        assert time.monotonic() < deadline and killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert plugged(reader)
    done = rig.precopy(transport=Transport.APPLIANCE)
    assert done.remaining_bytes == 0 and done.transport == "appliance", done
    assert_nothing_left(reader)
    rig.exact_backup()


def test_an_appliance_that_is_killed(machine: Vm, rig: Rig, reader: ApplianceVm, at_first_chunks: list[object]) -> None:
    write(machine, 40 * MIB, "lost")
    at_first_chunks.append(reader.kill_appliance)
    done = rig.precopy()
    assert done.remaining_bytes == 0 and "host" in done.transport, done
    assert any("is not used any longer" in note for note in done.notes), done
    assert_nothing_left(reader)
    reader.start_appliance()
    write(machine, MIB, "again")
    assert rig.precopy(transport=Transport.APPLIANCE).remaining_bytes == 0
    rig.exact_backup()


def test_an_appliance_whose_machine_dies(
    machine: Vm, rig: Rig, reader: ApplianceVm, at_first_chunks: list[object]
) -> None:
    write(machine, 40 * MIB, "dead")
    at_first_chunks.append(reader.kill)
    done = rig.precopy()
    assert done.remaining_bytes == 0 and "host" in done.transport, done
    rig.exact_backup()
