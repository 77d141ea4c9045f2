"""What a guest gives back is recorded like any write, and is zeroes in the next backup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup import trim
from tests.e2e.agents import wait_for_agentd
from tests.e2e.hosted import Hosted
from tests.e2e.rig import NAME, Rig
from tests.kit import disks
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("trim")
    system = disks.Disk(disks.make_ext4(folder / "system.qcow2", 64 * MIB, "qcow2"), "qcow2", "system")
    with Vm((system,)) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        wait_for_agentd(vm)
        yield vm


@pytest.mark.parametrize("by", ["agent", "qga"])
def test_free_blocks_are_zeroes_in_the_next_backup(machine: Vm, tmp_path: Path, by: str) -> None:
    rig = Rig(tmp_path / "rig", machine, agent=by == "agent", qga=by == "qga")
    mark = b"\x5a" * 65536
    machine.guest.run("tr '\\0' Z < /dev/zero | head -c 8388608 > /mnt/waste && sync")
    before = rig.exact_backup()
    assert before.image("system").read_bytes().count(mark) > 100
    machine.guest.run("rm /mnt/waste && sync")
    with rig.context() as context:
        told, found = trim.trim(context, NAME)
    assert told == by and {each.point for each in found} == {"/mnt"}
    assert found[0].trimmed is not None and found[0].trimmed >= 8 * MIB, found
    after = rig.exact_backup()
    assert mark not in after.image("system").read_bytes()
    rig.release()


def test_by_policy_it_is_asked_before_a_round_and_not_before_each(machine: Vm, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "rig", machine, agent=True)
    with Hosted(rig) as daemon:
        daemon.configure(daemon.later(), interval="1s", audit="none", more='trim = "1d"')
        daemon.start()
        daemon.wait_said(" round=")
        said = daemon.log
        assert said.index("event=trim") < said.index(" round="), said
        assert "by=agent trimmed=" in said
        rounds = len(daemon.runs("precopy"))
        machine.guest.run("dd if=/dev/urandom of=/mnt/more bs=1M count=4 && sync")
        daemon.wait(lambda: len(daemon.runs("precopy")) >= rounds + 2)
        assert daemon.log.count("event=trim") == 1
        daemon.stop()
    rig.release()


def test_nobody_to_ask(machine: Vm, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "rig", machine, qga=False)
    with rig.context() as context, pytest.raises(errors.Usage, match="without --agent and --qga"):
        trim.trim(context, NAME)
