"""Volumes that a policy leaves out of the disks of real VMs: zeroes in what is restored, and everything else exact."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.backup.complete import Options
from headstart.extents import Extent
from headstart.repository import snapshot
from headstart.restore import volumes
from tests.e2e import bare
from tests.e2e.choosing import Choosing
from tests.e2e.hosted import Hosted
from tests.e2e.rig import NAME, digest
from tests.kit import disks, layouts, lvm
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
FSTAB = """
LABEL=system / ext4 defaults 0 1
/dev/data/db /var/lib/mysql ext4 defaults 0 2
LABEL=scratch /tmp ext4 noatime 0 0
"""
POLICY = ("*", "!swap", "!label:scratch")


def whole(place: tuple[int, int]) -> tuple[Extent, ...]:
    return (Extent(place[0] * MIB, place[1] * MIB),)


LEFT_OUT = {"dev-system/2": whole(layouts.SWAP), "dev-system/3": whole(layouts.SCRATCH)}


# without a guest: the tables lie on the disk as something wrote them


@pytest.fixture(params=["qcow2", "raw", "iothread"])
def still(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Choosing]:
    image = layouts.system(tmp_path, FSTAB)
    kind: disks.Format = "raw" if request.param == "raw" else "qcow2"
    with bare.started([layouts.as_disk(image, "system", kind, iothread=request.param == "iothread")]) as vm:
        yield Choosing(tmp_path / "rig", vm, qga=False)


def test_partitions_are_left_out_and_come_back(still: Choosing) -> None:
    still.patterns = POLICY
    first = still.chosen_backup()
    assert first.excluded == {"dev-system": LEFT_OUT}, first.report.notes
    assert not any(note for note in first.report.notes if "volume" in note), first.report.notes
    # Also what was never written since is read once it is not left out any longer; what is new is left out.
    bare.write(still.vm, "system", (layouts.SWAP[0] + 2) * MIB, 65536, 0x51)
    bare.write(still.vm, "system", (layouts.ROOT[0] + 20) * MIB, 65536, 0x52)
    second = still.chosen_backup()
    assert second.excluded == first.excluded
    assert second.report.disks[0].changed_bytes == 65536
    assert second.volume("dev-system/1").changed_bytes == 65536
    assert second.volume("dev-system/1").mounted == ("/",)
    assert second.volume("dev-system/3").mounted == ("/tmp",)
    still.patterns = ("*", "!label:scratch", "!/")
    third = still.chosen_backup()
    assert third.excluded["dev-system"].keys() == {"dev-system/1", "dev-system/3"}
    still.patterns = ("*",)
    assert still.chosen_backup().excluded == {"dev-system": {}}


def test_a_point_that_has_only_what_is_asked_for(still: Choosing) -> None:
    """What tells where volumes lie did not change, and belongs to no sample: it is asked for all the same."""
    still.patterns = POLICY
    still.chosen_backup()
    bare.write(still.vm, "system", (layouts.ROOT[0] + 20) * MIB, 65536, 0x52)
    made = still.backup(Options(audit=0))
    assert made.disks[0].excluded_bytes == (layouts.SWAP[1] + layouts.SCRATCH[1]) * MIB, made.notes
    assert made.disks[0].residue_bytes + made.disks[0].precopied_bytes == 65536


def test_a_torn_table_leaves_nothing_out(still: Choosing) -> None:
    still.patterns = POLICY
    still.chosen_backup()
    bare.write(still.vm, "system", layouts.SIZE - 512, 512, 0)
    torn = still.chosen_backup()
    assert torn.excluded == {"dev-system": {}}
    assert any(
        "dev-system/2 is backed up, and was to be left out: the second copy" in note for note in torn.report.notes
    )
    assert torn.report.disks[0].changed_bytes >= (layouts.SWAP[1] + layouts.SCRATCH[1]) * MIB


def test_one_mount_point_alone(still: Choosing, tmp_path: Path) -> None:
    with still.journal() as journal:
        entry = journal.vm(NAME)
        journal.remove_vm(NAME)
        journal.add_vm(type(entry)(NAME, entry.monitor, volumes=("/tmp",)))
    made = still.chosen_backup()
    assert made.excluded["dev-system"].keys() == {"dev-system/1", "dev-system/2"}
    # The fstab is not in it: the volume is found by its label.
    with still.repo() as repo:
        found = snapshot.load(repo, made.report.snapshot)
        wish = volumes.parse_wish(f"LABEL=scratch={tmp_path / 'scratch.out'}")
        done = volumes.restore(repo, found, tmp_path, (wish,), lambda *_: None)
    start, length = layouts.SCRATCH
    seen = made.seen["dev-system"].read_bytes()[start * MIB : (start + length) * MIB]
    assert done.disks[0].path.read_bytes() == seen


@pytest.mark.parametrize("safety", [True, False])
def test_a_rollback_leaves_alone_what_was_left_out(tmp_path: Path, safety: bool) -> None:
    """It may be nowhere else. What today's rules leave out, and the snapshot has, is saved all the same."""
    with bare.started([layouts.as_disk(layouts.system(tmp_path, FSTAB), "system", "raw")]) as vm:
        rig = Choosing(tmp_path / "rig", vm, qga=False)
        everything = rig.chosen_backup()
        first = everything.seen["dev-system"].read_bytes()
        bare.write(vm, "system", (layouts.SCRATCH[0] + 1) * MIB, 65536, 0x50)
        rig.patterns = POLICY
        chosen = rig.chosen_backup()
        bare.write(vm, "system", (layouts.SCRATCH[0] + 2) * MIB, 65536, 0x51)
        bare.write(vm, "system", (layouts.ROOT[0] + 20) * MIB, 65536, 0x52)
        vm.quit()
        there = vm.disks[0].path.read_bytes()
        done = rig.rolled_back(chosen.report.snapshot, safety=safety)
        kept = slice(layouts.SCRATCH[0] * MIB, (layouts.SCRATCH[0] + layouts.SCRATCH[1]) * MIB)
        expected = bytearray(chosen.seen["dev-system"].read_bytes())
        expected[kept] = there[kept]
        assert vm.disks[0].path.read_bytes() == expected
        assert any("dev-system/3" in note and "stays as it is" in note for note in done.notes), done.notes
        back = rig.rolled_back(everything.report.snapshot, safety=safety)
        assert vm.disks[0].path.read_bytes() == first
        if safety:
            assert back.safety is not None
            assert rig.restore(back.safety)["dev-system"].read_bytes() == expected


# with a guest, and LVM over two disks


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("volumes")
    chosen = (
        layouts.as_disk(layouts.system(folder, FSTAB), "system"),
        disks.Disk(disks.make_empty(folder / "one.qcow2", 64 * MIB, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_empty(folder / "two.raw", 64 * MIB), "raw", "two", interface="virtio-scsi"),
        lvm.disk(folder),
    )
    with Vm(chosen) as vm:
        yield vm


@pytest.fixture(scope="module")
def tools(machine: Vm) -> lvm.Lvm:
    found = lvm.Lvm(machine.guest, machine.device("lvm"))
    found.run("pvcreate", machine.device("one"), machine.device("two"))
    found.run("vgcreate", "data", machine.device("one"), machine.device("two"))
    found.run("lvcreate", "--zero", "n", "--name", "db", "--extents", "6", "data")
    found.run("lvcreate", "--zero", "n", "--name", "cache", "--stripes", "2", "--size", "16M", "data")
    found.run("lvcreate", "--zero", "n", "--name", "swap", "--extents", "14", "data")
    return found


@pytest.fixture(scope="module")
def rig(machine: Vm, tmp_path_factory: pytest.TempPathFactory) -> Choosing:
    return Choosing(tmp_path_factory.mktemp("rig") / "rig", machine)


def put(vm: Vm, device: str, content: bytes) -> None:
    told = base64.b64encode(content).decode()
    vm.guest.run(f"echo {told} | base64 -d | dd of={device} conv=notrunc bs=4096 2>/dev/null && sync")


def size_of(vm: Vm, device: str) -> int:
    return int(vm.guest.run(f"blockdev --getsize64 {device}").output)


def test_logical_volumes_over_two_disks(machine: Vm, tools: lvm.Lvm, rig: Choosing) -> None:
    """Marks fill what is left out: they are to be seen, and never restored. Then it grows, moves, and is backed up."""
    guest = machine.guest
    guest.write("/dev/data/db", 0, size_of(machine, "/dev/data/db"), seed="db")
    guest.write("/dev/data/cache", 0, size_of(machine, "/dev/data/cache"), byte=0xA5)
    guest.write("/dev/data/swap", 0, size_of(machine, "/dev/data/swap"), byte=0xA5)
    put(machine, "/dev/data/swap", layouts.swap_header())
    rig.patterns = ("*", "!swap", "!data/cache")
    rig.precopy()
    made = rig.chosen_backup()
    told = {(disk, name) for disk, found in made.excluded.items() for name in found}
    assert {("dev-one", "data/cache"), ("dev-two", "data/cache"), ("dev-system", "dev-system/2")} <= told
    assert {disk for disk, name in told if name == "data/swap"} == {"dev-one", "dev-two"}
    marks = b"\xa5" * 65536
    assert any(marks in made.seen[name].read_bytes() for name in ("dev-one", "dev-two"))
    assert not any(marks in path.read_bytes() for path in made.restored.values())

    # Grown and moved: extents that were the cache's belong to the database now.
    tools.run("lvremove", "--yes", "data/cache")
    tools.run("lvextend", "--size", "+8M", "data/db")
    tools.run("lvcreate", "--zero", "n", "--name", "cache", "--size", "12M", "data")
    moved = rig.chosen_backup()
    assert {name for found in moved.excluded.values() for name in found} >= {"data/cache", "data/swap"}
    assert moved.excluded != made.excluded
    assert any(marks in moved.restored[name].read_bytes() for name in ("dev-one", "dev-two")), "the database has them"

    # What is swap no longer is read whole, though nobody wrote there.
    rig.patterns = ("*", "!data/cache")
    whole = rig.chosen_backup()
    assert {name for found in whole.excluded.values() for name in found} == {"data/cache"}
    guest.write("/dev/data/db", 0, MIB, seed="again")
    later = rig.chosen_backup()
    assert later.volume("data/db").changed_bytes >= MIB
    assert sum(disk.changed_bytes for disk in later.report.disks) < 4 * MIB


def test_the_policy_of_a_daemon(machine: Vm, tools: lvm.Lvm, rig: Choosing) -> None:
    machine.guest.write("/dev/data/swap", 8192, 4 * MIB, byte=0x3C)
    put(machine, "/dev/data/swap", layouts.swap_header())
    with Hosted(rig) as daemon:
        daemon.configure(["*:*:0/10"], audit="none", more='volumes = ["*", "!swap"]')
        before = len(daemon.runs("backup"))
        daemon.start()
        daemon.wait_backups(before + 2)
        assert {each["name"] for each in daemon.cli.run("status", NAME).json["vms"][0]["volumes"]} >= {"data/swap"}
        daemon.stop()
    with rig.repo() as repo:
        made = snapshot.load(repo, daemon.runs("backup")[-1]["snapshot"])
    told = {(disk.name, each.volume, each.pattern) for disk in made.disks for each in disk.excluded}
    assert {each for each in told if each[1] == "data/swap"} >= {("dev-one", "data/swap", "!swap")}, told
    restored = rig.restore(made.id)
    assert not any(b"\x3c" * 65536 in path.read_bytes() for path in restored.values())
    rig.release()


def test_where_changes_are_without_any_policy(machine: Vm, tools: lvm.Lvm, rig: Choosing) -> None:
    rig.patterns = ("*",)
    rig.backup()
    machine.guest.write("/dev/data/db", 4 * MIB, 2 * MIB, seed="told")
    made = rig.backup()
    told = {each.name: each for each in made.volumes}
    assert told["data/db"].changed_bytes == 2 * MIB and told["data/db"].mounted == ("/var/lib/mysql",)
    assert told["dev-system/1"].mounted == ("/",) and not told["dev-system/1"].changed_bytes


def test_a_logical_volume_restored_by_its_mount_point(
    machine: Vm, tools: lvm.Lvm, rig: Choosing, tmp_path: Path
) -> None:
    made = rig.backup()
    length = size_of(machine, "/dev/data/db")
    with rig.repo() as repo:
        found = snapshot.load(repo, made.snapshot)
        wishes = (volumes.parse_wish("/var/lib/mysql"),)
        [disk] = volumes.restore(repo, found, tmp_path / "out", wishes, lambda *_: None).disks
    assert disk.size == length and disk.path.stat().st_size == length
    assert digest(disk.path) == machine.guest.hash("/dev/data/db")
