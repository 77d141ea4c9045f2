"""A guest that no hypervisor helps: its filters record, its agent reads, it keeps its own point in time."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup import opening
from headstart.backup.complete import Options
from headstart.backup.report import BackupReport
from headstart.extents import Extent
from headstart.hypervisor.contract import PointRequest
from tests.e2e.agents import kill, wait_for_agentd
from tests.e2e.rig import NAME, Rig, digest
from tests.kit import disks, era, lvm, workloads
from tests.kit.control import GuestError
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
SIZES = {"data": 8 * MIB + 5 * disks.SECTOR, "more": 10 * MIB}
COMPANIONS = {"data": 24 * MIB, "more": 14 * MIB}
#: Nothing else writes here.
QUIET = 5 * MIB


class Alone:
    """A VM with two disks under filters. What its hypervisor could tell is not asked for."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        chosen = [
            disks.Disk(disks.make_filled(folder / "data.qcow2", SIZES["data"], "qcow2"), "qcow2", "data"),
            disks.Disk(disks.make_ext4(folder / "more.raw", SIZES["more"] + 2 * MIB), "raw", "more"),
        ]
        for name, size in COMPANIONS.items():
            chosen.append(disks.Disk(disks.make_empty(folder / f"{name}-companion.raw", size), "raw", f"c-{name}"))
        self.vm = stack.enter_context(Vm((*chosen, era.disk(folder))))
        self.filters = era.Filters(self.vm.guest, self.vm.device("era"))
        for name in SIZES:
            self.filters.run("add", *self.places(name))
        wait_for_agentd(self.vm)
        self.rig = Rig(folder / "rig", self.vm, agent=True, qga=False, guest_only=True)
        self._seeds = itertools.count()

    def places(self, name: str) -> tuple[str, str, str]:
        part = "1" if name == "more" else ""
        return name, self.vm.device(name) + part, self.vm.device(f"c-{name}")

    def write(self, disk: str, first: int, count: int, start: int = 0) -> None:
        """Blocks, synced."""
        device = f"/dev/mapper/{disk}"
        self.vm.guest.write(device, start + first * BLOCK, count * BLOCK, seed=next(self._seeds))

    def again(self) -> None:
        """The guest has booted again: what its configuration says is set up, before anything is written."""
        # An agent that is started while filters are configured and do not stand has to think the worst.
        wait_for_agentd(self.vm)
        self.filters = era.Filters(self.vm.guest, self.vm.device("era"))
        self.filters.configure(*(" ".join(self.places(name)) for name in SIZES))
        self.filters.run("up")
        self.rig.follow(self.vm)

    def flushes(self, name: str) -> int:
        """Of the disk below a filter, in this boot."""
        return int(self.vm.guest.run(f"cat /sys/block/{self.vm.device(name)[5:]}/stat").output.split()[15])

    def point(self, name: str) -> str:
        """What shows it."""
        node = self.vm.guest.run(f"grep -lx headstart-{name}-point /sys/block/dm-*/dm/name").output
        return f"/dev/{node.split('/')[3]}"

    def points(self) -> list[str]:
        """What of a point in time stands in the guest."""
        found = self.vm.guest.run("cat /sys/block/dm-*/dm/name", check=False).output.split()
        return [name for name in found if name.endswith(("-point", "-cow"))]

    def exact(self, options: Options | None = None) -> BackupReport:
        """A backup whose restored disks are what a program in the guest read from its point in time."""
        seen: dict[str, str] = {}

        def look(_facts: Mapping[str, str]) -> None:
            for name in SIZES:
                seen[name] = self.vm.guest.hash(self.point(name))

        made = self.rig.backup(options, before_release=look)
        assert made.audit.mismatched_bytes == 0
        assert {name: digest(path) for name, path in self.rig.restore(made.snapshot).items()} == seen
        assert self.points() == []
        return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with contextlib.ExitStack() as stack:
        made = Alone(tmp_path_factory.mktemp("alone"), stack)
        made.exact()
        yield made


def test_file_systems_are_frozen(alone: Alone) -> None:
    alone.vm.guest.mount("/dev/mapper/more", "/srv")
    alone.vm.guest.run("echo something >/srv/file")
    made = alone.rig.backup()
    alone.vm.guest.unmount("/srv")
    assert made.consistency == "filesystem", made.notes
    restored = alone.rig.restore(made.snapshot)["more"]
    shown = subprocess.run(["/sbin/debugfs", "-R", "cat /file", restored], check=True, capture_output=True)
    assert shown.stdout == b"something\n"
    assert not any(disk.compared for disk in made.disks)


def test_rounds_and_backups_under_constant_writes(alone: Alone) -> None:
    regions = [workloads.Region("/dev/mapper/data", MIB, 3 * MIB), workloads.Region("/dev/mapper/more", 0, MIB)]
    with workloads.churn(alone.vm.guest, regions, rate=2 * MIB, write_size=BLOCK // 4, sync_every=4) as churn:
        churn.wait_changed(MIB)
        alone.write("data", 0, 16, QUIET)
        assert alone.rig.precopy().transport == "agent"
        alone.write("data", 16, 16, QUIET)
        made = alone.exact(Options(settle=False))
        found = {disk.name: disk for disk in made.disks}["data"]
        assert not found.compared, (found, made.notes)
        assert found.tracking == "era"
        assert found.changed_bytes <= 6 * MIB
        assert found.precopied_bytes >= MIB
    made = alone.exact(Options(plain=True))
    for name, path in alone.rig.restore(made.snapshot).items():
        assert digest(path) == alone.vm.guest.hash(f"/dev/mapper/{name}")


def test_discards_are_refused(alone: Alone) -> None:
    """The kernel would record the first block of each, and no more."""
    with pytest.raises(GuestError, match="not supported"):
        alone.vm.guest.discard("/dev/mapper/data", QUIET, 8 * BLOCK)


def test_a_reboot_keeps_the_head_start(alone: Alone) -> None:
    alone.write("data", 0, 16, QUIET)
    before = alone.flushes("data")
    alone.rig.precopy()
    assert alone.flushes("data") > before, "what was copied might be undone by a power cut"
    alone.write("data", 32, 4, QUIET)
    alone.vm.reset()
    alone.again()
    made = alone.exact(Options(settle=False))
    found = {disk.name: disk for disk in made.disks}["data"]
    assert not found.compared, (found, made.notes)
    assert found.precopied_bytes >= 16 * BLOCK
    assert 4 * BLOCK <= found.residue_bytes <= 5 * BLOCK


def test_an_initramfs_can_set_them_up(alone: Alone) -> None:
    """Without Python, as for a root disk."""
    alone.write("data", 0, 16, QUIET)
    alone.rig.precopy()
    script = alone.filters.run("script").output
    alone.vm.reset()
    wait_for_agentd(alone.vm)
    alone.filters = era.Filters(alone.vm.guest, alone.vm.device("era"))
    program = f'dmsetup() {{ LD_LIBRARY_PATH={era.MOUNT_POINT} {era.MOUNT_POINT}/dmsetup "$@"; }}'
    alone.vm.guest.run(f"set -e\n{program}\n{script}")
    alone.filters.configure(*(" ".join(alone.places(name)) for name in SIZES))
    alone.rig.follow(alone.vm)
    made = alone.rig.backup(Options(settle=False))
    assert not any(disk.compared for disk in made.disks), made.notes
    assert {disk.name: disk.precopied_bytes for disk in made.disks}["data"] >= 16 * BLOCK


def test_a_power_cut_keeps_the_head_start(alone: Alone) -> None:
    alone.write("data", 0, 16, QUIET)
    alone.rig.precopy()
    regions = [workloads.Region("/dev/mapper/data", MIB, 3 * MIB)]
    with (
        contextlib.suppress(Exception),
        workloads.churn(alone.vm.guest, regions, rate=2 * MIB, write_size=BLOCK // 4) as churn,
    ):
        churn.wait_changed(MIB)
        alone.vm.kill()
    alone.vm.start()
    alone.vm.wait_ready()
    alone.again()
    made = alone.exact(Options(audit=None, settle=False))
    found = {disk.name: disk for disk in made.disks}["data"]
    assert not found.compared, (found, made.notes)
    assert found.precopied_bytes >= 15 * BLOCK
    assert MIB <= found.residue_bytes < 5 * MIB


def test_too_little_room_for_old_content_fails_the_backup_and_nothing_else(alone: Alone) -> None:
    before = alone.rig.snapshots()

    def overwrite(_facts: Mapping[str, str]) -> None:
        alone.write("more", 0, 6 * MIB // BLOCK)

    with pytest.raises(errors.PointLost, match="companion"):
        alone.rig.backup(after_thaw=overwrite)
    assert alone.rig.snapshots() == before
    assert alone.points() == []
    found = {disk.name: disk for disk in alone.exact(Options(settle=False)).disks}["more"]
    assert not found.compared
    assert found.changed_bytes == 6 * MIB


def test_an_agent_that_is_killed_leaves_no_point_in_time(alone: Alone) -> None:
    before = alone.rig.snapshots()

    def act(_facts: Mapping[str, str]) -> None:
        assert alone.points() != []
        kill(alone.vm)

    with pytest.raises(errors.HeadstartError):
        alone.rig.backup(after_thaw=act)
    assert alone.rig.snapshots() == before
    wait_for_agentd(alone.vm)
    assert alone.points() == []
    assert not any(disk.compared for disk in alone.exact().disks)


def test_a_host_that_is_gone_leaves_no_point_in_time(alone: Alone) -> None:
    with alone.rig.context() as context:
        machine = opening.machine(context, context.journal.vm(NAME))
        point = machine.take(PointRequest((), (), {}))
        assert alone.points() != []
        # In the middle of reading it: the agent has it open.
        reading = point.reader("data").read([Extent(0, SIZES["data"])])
        next(iter(reading)).release()
        machine.close()
    deadline = time.monotonic() + 30
    while alone.points():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_verbs_tell_what_there_is(alone: Alone) -> None:
    cli = alone.rig.cli
    shown = cli.run("vm", "show", NAME).json
    assert shown["guest_only"]
    assert {each["name"]: (each["tracking"], each["size"]) for each in shown["disks"]} == {
        name: ("era", size) for name, size in SIZES.items()
    }
    told = cli.run("doctor", NAME, expect=None)
    assert [each["check"] for each in told.json["findings"] if each["check"] == "filters"] == ["filters"] * 2, told
    refused = cli.run("identify", NAME, "--volume", "/dev/mapper/more", expect=None)
    assert refused.error["error"]["kind"] == "Unsupported", refused
    assert cli.run("precopy", NAME).json["transport"] == "agent"
    made = cli.run("backup", NAME).json
    refused = cli.run("rollback", NAME, made["snapshot"], "--yes", expect=None)
    assert refused.status not in (0, 1), refused
    assert "headstart restore" in refused.error["error"]["message"], refused
    twin = cli.run("vm", "add", "twin", "--guest-only", "--agent", alone.rig.folder / "agent", expect=2)
    assert "added already" in twin.error["error"]["message"]


def test_a_filter_that_does_not_stand_is_told_and_not_believed_again(alone: Alone) -> None:
    alone.vm.reset()
    wait_for_agentd(alone.vm)
    alone.filters = era.Filters(alone.vm.guest, alone.vm.device("era"))
    alone.filters.configure(*(" ".join(alone.places(name)) for name in SIZES))
    # The agent that is there was started before there was a configuration.
    kill(alone.vm)
    wait_for_agentd(alone.vm)
    alone.rig.follow(alone.vm)
    with pytest.raises(errors.NotReady, match="does not stand"):
        alone.rig.backup()
    alone.vm.guest.write(alone.vm.device("data"), QUIET, BLOCK, seed=99)
    alone.filters.run("up")
    found = {disk.name: disk for disk in alone.exact().disks}["data"]
    assert found.compared


def test_writes_beside_a_filter_are_found(alone: Alone) -> None:
    alone.vm.guest.write(alone.vm.device("data"), QUIET + 5 * BLOCK, BLOCK, seed=100)
    found = {disk.name: disk for disk in alone.exact().disks}
    assert found["data"].changed_bytes >= SIZES["data"] - BLOCK
    assert found["more"].changed_bytes < MIB


def test_a_logical_volume(tmp_path: Path) -> None:
    """With a companion in its own group."""
    chosen = [disks.Disk(disks.make_empty(tmp_path / "group.raw", 40 * MIB), "raw", "group"), lvm.disk(tmp_path)]
    with Vm((*chosen, era.disk(tmp_path))) as machine:
        tools = lvm.Lvm(machine.guest, machine.device("lvm"))
        tools.run("pvcreate", machine.device("group"))
        tools.run("vgcreate", "group", machine.device("group"))
        tools.run("lvcreate", "--zero", "n", "--name", "data", "--size", "8M", "group")
        tools.run("lvcreate", "--zero", "n", "--name", "companion", "--size", "24M", "group")
        filters = era.Filters(machine.guest, machine.device("era"))
        filters.run("add", "data", "/dev/mapper/group-data", "/dev/mapper/group-companion")
        wait_for_agentd(machine)
        rig = Rig(tmp_path / "rig", machine, agent=True, qga=False, guest_only=True)
        rig.backup()
        machine.guest.write("/dev/mapper/data", 3 * BLOCK, 2 * BLOCK, seed=1)
        rig.precopy()
        machine.guest.write("/dev/mapper/data", 4 * BLOCK, 2 * BLOCK, seed=2)
        made = rig.backup(Options(settle=False))
        [found] = made.disks
        assert not found.compared
        assert (found.changed_bytes, found.precopied_bytes) == (3 * BLOCK, BLOCK)
        assert digest(rig.restore(made.snapshot)["data"]) == machine.guest.hash("/dev/mapper/group-data")
