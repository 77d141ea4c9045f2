"""Domains of libvirt's in trouble: what goes wrong costs the head start at most, and never pauses a guest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.backup.transport import Transport
from headstart.hypervisor.libvirt import jobs, obstacles
from tests.e2e import steps
from tests.e2e.rig import NAME, digest
from tests.e2e.virt import VirtRig
from tests.kit import disks, workloads
from tests.kit.cli import Cli
from tests.kit.domain import AGENT, QGA, Domain, open_up
from tests.kit.libvirtd import Libvirtd

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 24 * MIB + 3 * disks.SECTOR
PAUSED, OFF = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_SHUTOFF


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with Libvirtd() as running:
        yield running


def one_disk(folder: Path, size: int = SIZE) -> disks.Disk:
    return disks.Disk(disks.make_filled(folder / "data.qcow2", size, "qcow2"), "qcow2", "data")


@pytest.fixture(scope="module")
def machine(daemon: Libvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    with Domain(daemon, "trouble", [one_disk(tmp_path_factory.mktemp("disks"))]) as vm:
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Domain) -> Iterator[VirtRig]:
    made = VirtRig(tmp_path / "rig", machine)
    yield made
    made.release()
    assert not any(made.checkpoints().values())
    assert machine.virt.jobStats()["type"] == 0


@contextlib.contextmanager
def never_paused(vm: Domain) -> Iterator[None]:
    """QEMU itself tells when it stops a guest for want of space; and it runs at the end."""
    before = vm.log.count("paused")
    states: set[int] = set()
    over = threading.Event()

    def look() -> None:
        connection = libvirt.open(vm.daemon.uri)
        domain = connection.lookupByName(vm.name)
        while not over.wait(0.02):
            states.add(domain.state()[0])
        connection.close()

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert states == {libvirt.VIR_DOMAIN_RUNNING}
    assert vm.log.count("paused") == before


def assert_exact(rig: VirtRig, options: Options | None = None, **actions: Any) -> None:
    """A quiet guest: what is restored is what it has."""
    exact = rig.exact_backup(options, **actions)
    for disk in rig.vm.disks:
        assert digest(exact.image(disk.name)) == rig.vm.guest.hash(rig.vm.device(disk.name))


def has_job(vm: Domain) -> bool:
    with contextlib.suppress(libvirt.libvirtError):
        return bool(vm.virt.jobStats()["type"])
    return True  # one begins or ends


def wait_no_job(vm: Domain) -> None:
    deadline = time.monotonic() + 15
    while has_job(vm):
        assert time.monotonic() < deadline, "a job stands that nobody ends"
        time.sleep(0.1)


# -- the scratch space


def test_a_guest_that_fills_the_scratch_space_is_not_paused(
    machine: Domain, rig: VirtRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is ended at 80 % of what is reserved; the next backup has enough, and is exact."""
    rig.backup()
    device = machine.device("data")

    def overwrite(_: Mapping[str, str]) -> None:
        machine.guest.write(device, 0, 16 * MIB, seed="spill")
        wait_no_job(machine)

    with monkeypatch.context() as small, never_paused(machine):
        small.setattr(jobs, "_room", lambda _part, _reserve: 4 * MIB)
        with pytest.raises(errors.PointLost, match="scratch file"):
            rig.backup(after_thaw=overwrite)
    assert len(rig.snapshots()) == 1
    assert not has_job(machine)
    assert_exact(rig)


def test_a_slice_that_is_given_up_is_read_again(machine: Domain, rig: VirtRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host reads a disk whose guest overwrites it all the time."""
    monkeypatch.setattr(jobs, "_room", lambda _part, _reserve: 2 * MIB)
    region = workloads.Region(machine.device("data"), 0, 16 * MIB)
    with workloads.churn(machine.guest, [region], rate=4 * MIB, write_size=16 * 1024, sync_every=4) as running:
        running.wait_changed(MIB)
        with contextlib.suppress(errors.PointLost), never_paused(machine):
            rig.precopy(transport=Transport.HOST)
    monkeypatch.undo()
    assert_exact(rig)


# -- what others do


def test_a_job_of_another_tool_is_waited_for_and_named(
    machine: Domain, rig: VirtRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "other"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    open_up(folder / "nbd")
    xml = f"""<domainbackup mode='pull'><server transport='unix' socket='{folder}/nbd'/>
        <disks><disk name='vda' backup='yes' type='file'><scratch file='{folder}/scratch'/></disk></disks>
        </domainbackup>"""
    machine.virt.backupBegin(xml, None)
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(errors.Busy, match="backup job of another tool"):
        rig.backup()
    assert machine.virt.jobStats()["type"], "somebody else's job was ended"
    monkeypatch.undo()
    ending = threading.Timer(2.0, machine.virt.abortJob)
    ending.start()
    assert_exact(rig)
    ending.join()


def test_a_block_job_of_the_owners_is_waited_for_and_named(
    machine: Domain, rig: VirtRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy" / "vda.qcow2"
    target.parent.mkdir()
    open_up(target)
    xml = f"<disk type='file'><source file='{target}'/><driver type='qcow2'/></disk>"
    slow = {libvirt.VIR_DOMAIN_BLOCK_COPY_BANDWIDTH: MIB}
    machine.virt.blockCopy("vda", xml, slow, libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(errors.Busy, match="a block copy of disk vda is at"):
        rig.backup()
    assert machine.virt.blockJobInfo("vda"), "somebody else's job was ended"
    machine.virt.blockJobAbort("vda")
    monkeypatch.undo()
    assert_exact(rig)


def test_a_domain_that_is_gone_can_be_removed(daemon: Libvirtd, tmp_path: Path) -> None:
    with Domain(daemon, "gone", [one_disk(tmp_path)], transient=True) as vm:
        rig = VirtRig(tmp_path / "rig", vm)
        vm.shut_off()
        cli = Cli(rig.folder)
        assert "has no domain" in " ".join(cli.run("vm", "remove", NAME).json["notes"])
        assert cli.run("vm", "list").json == {"vms": []}


def test_a_migration_is_refused_at_once(machine: Domain, rig: VirtRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two libvirtd do not run on one machine: what libvirt tells of a migration stands for one."""
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 0.0)
    moving = {"type": 2, "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
    monkeypatch.setattr(obstacles, "_stats", lambda _domain: moving)
    with pytest.raises(errors.Busy, match="migrated to another host"):
        rig.backup()
    monkeypatch.undo()


def test_somebody_elses_snapshot_and_its_commit(machine: Domain, rig: VirtRig) -> None:
    """The chain is another one: compared, and told; checkpoints of others stay."""
    virt, device = machine.virt, machine.device("data")
    rig.backup()
    others = "<domaincheckpoint><name>theirs</name></domaincheckpoint>"
    virt.checkpointCreateXML(others)
    only_disks = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    virt.snapshotCreateXML("<domainsnapshot><name>before</name></domainsnapshot>", only_disks)
    machine.guest.write(device, 3 * MIB, MIB, seed="in the overlay")
    exact = rig.exact_backup()
    assert exact.disk("data").compared and "backing chain" in exact.disk("data").reason
    machine.guest.write(device, 5 * MIB, MIB, seed="also there")
    virt.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    while virt.blockJobInfo("vda")["cur"] < virt.blockJobInfo("vda")["end"]:
        time.sleep(0.05)
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            virt.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
            break
        time.sleep(0.1)
    exact = rig.exact_backup()
    assert exact.disk("data").compared
    assert digest(exact.image("data")) == machine.guest.hash(device)
    assert "theirs" in [each.getName() for each in virt.listAllCheckpoints()]
    virt.checkpointLookupByName("theirs").delete()


# -- what dies


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_libvirtd_is_restarted_in_the_middle(
    daemon: Libvirtd, machine: Domain, rig: VirtRig, number: signal.Signals
) -> None:
    """Before the freeze, and while the point in time stands."""
    rig.backup()
    machine.guest.write(machine.device("data"), 2 * MIB, MIB, seed="restart")

    def restart(_: Mapping[str, str]) -> None:
        daemon.restart(number)

    assert_exact(rig, before_freeze=restart, after_thaw=restart)
    rig.assert_tidy()


@pytest.mark.parametrize("place", ["headstart.hypervisor.libvirt.point:LibvirtPoint._offer:1",
                                   "headstart.hypervisor.libvirt.jobs:Jobs.end:3"])  # fmt: skip
def test_a_run_that_is_killed_leaves_no_job(machine: Domain, rig: VirtRig, place: str) -> None:
    """Its watch ends the job and thaws the guest; the next run is exact."""
    rig.backup()
    machine.guest.write(machine.device("data"), 4 * MIB, MIB, seed=place)
    with never_paused(machine):
        run = Cli(rig.folder).start("backup", NAME, faults=("--before", place))
        assert run.wait(60) == -signal.SIGKILL, run.communicate()
        wait_no_job(machine)
    assert_exact(rig)


def test_a_run_and_its_watch_are_killed(machine: Domain, rig: VirtRig) -> None:
    """Then the next run ends the job."""
    rig.backup()
    held: list[bool] = []

    def kill(_: Mapping[str, str]) -> None:
        pids = subprocess.run(["pgrep", "-f", "watch_process.py"], capture_output=True, text=True).stdout.split()
        for pid in (run.pid, *map(int, pids)):
            os.kill(pid, signal.SIGKILL)
        run.wait(30)
        held.append(has_job(machine))

    with steps.Step("after-thaw", kill, rig.folder) as step:
        run = Cli(rig.folder).start("backup", NAME, "--hook", f"after-thaw={step.hook.command}")
        run.wait(60)
        while not held:
            time.sleep(0.05)
    assert held == [True]
    assert any("the backup job of a dead run was ended" in note for note in rig.backup().notes)
    assert_exact(rig)


def test_qemu_is_killed(machine: Domain, rig: VirtRig) -> None:
    """Bitmaps are inconsistent: compared, and nobody has to delete a checkpoint by hand."""
    rig.backup()
    rig.precopy()
    machine.guest.write(machine.device("data"), 6 * MIB, MIB, seed="killed")
    machine.kill()
    machine.virt.create()
    machine.follow()
    exact = rig.exact_backup()
    assert exact.disk("data").compared
    assert digest(exact.image("data")) == machine.guest.hash(machine.device("data"))
    assert not rig.backup().disks[0].compared


# -- persistent, transient, off, redefined


def test_a_clean_restart_keeps_the_head_start(machine: Domain, rig: VirtRig) -> None:
    rig.backup()
    machine.guest.write(machine.device("data"), 7 * MIB, MIB, seed="restart")
    rig.precopy()
    machine.shut_off()
    machine.virt.create()
    machine.follow()
    exact = rig.exact_backup()
    assert not exact.disk("data").compared
    assert exact.disk("data").precopied_bytes >= MIB


def test_a_domain_that_is_off_is_backed_up_and_stays_off(machine: Domain, rig: VirtRig) -> None:
    rig.backup()
    machine.guest.write(machine.device("data"), 8 * MIB, MIB, seed="off")
    content = machine.guest.hash(machine.device("data"))
    machine.power_off()
    states = []
    with pytest.raises(errors.Unreachable, match="is off"):
        rig.precopy()
    made = rig.backup(Options(audit=None), before_release=lambda _: states.append(machine.state))
    assert {machine.state, *states} == {OFF}
    assert made.consistency == "offline" and not made.disks[0].compared
    assert any("was off" in note for note in made.notes)
    assert digest(rig.restore(made.snapshot)["vda"]) == content
    assert {disk["name"] for disk in rig.inspect().disks} == {"vda"}
    assert machine.state == OFF
    machine.virt.create()
    machine.follow()
    machine.guest.write(machine.device("data"), 10 * MIB, MIB, seed="on again")
    exact = rig.exact_backup()
    assert not exact.disk("data").compared
    assert digest(exact.image("data")) == machine.guest.hash(machine.device("data"))


def test_a_domain_that_is_started_while_its_images_are_read(machine: Domain, rig: VirtRig) -> None:
    """Its owner is not kept waiting: the backup begins again, of the running domain."""
    rig.backup()
    machine.guest.write(machine.device("data"), 11 * MIB, MIB, seed="to be started")
    machine.power_off()

    def start(_: Mapping[str, str]) -> None:
        if machine.state == OFF:
            machine.virt.create()
            machine.follow()

    made = rig.backup(before_release=start)
    assert any("begun again: the VM was started" in note for note in made.notes)
    assert made.consistency != "offline" and not made.disks[0].compared
    assert digest(rig.restore(made.snapshot)["vda"]) == machine.guest.hash(machine.device("data"))
    rig.assert_tidy()


def test_a_run_that_is_killed_while_the_domain_is_off(machine: Domain, rig: VirtRig) -> None:
    rig.backup()
    machine.power_off()
    run = Cli(rig.folder).start(
        "backup", NAME, faults=("--before", "headstart.hypervisor.offline:OfflinePoint.check:1")
    )
    assert run.wait(60) == -signal.SIGKILL, run.communicate()
    assert machine.state == OFF
    machine.virt.create()
    machine.follow()
    assert_exact(rig)


def test_saved_memory_is_not_touched(machine: Domain, rig: VirtRig) -> None:
    rig.backup()
    machine.virt.managedSave()
    assert rig.backup().consistency == "crash"
    assert machine.virt.hasManagedSaveImage()
    machine.virt.create()
    machine.resume_contact()
    assert_exact(rig)


def test_a_domain_that_is_defined_anew_gets_its_checkpoints_back(machine: Domain, rig: VirtRig) -> None:
    rig.backup()
    machine.guest.write(machine.device("data"), 9 * MIB, MIB, seed="redefined")
    rig.precopy()
    machine.shut_off()
    machine.virt.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    machine.start()
    machine.wait_ready()
    assert not machine.virt.listAllCheckpoints()
    exact = rig.exact_backup()
    assert any("defined again" in note for note in exact.report.notes)
    assert not exact.disk("data").compared
    assert exact.disk("data").precopied_bytes >= MIB
    assert digest(exact.image("data")) == machine.guest.hash(machine.device("data"))


def test_a_domain_that_is_renamed_is_found(daemon: Libvirtd, tmp_path: Path) -> None:
    with Domain(daemon, "before", [one_disk(tmp_path)]) as vm:
        rig = VirtRig(tmp_path / "rig", vm)
        made = rig.backup()
        vm.guest.write(vm.device("data"), MIB, MIB, seed="renamed")
        content = vm.guest.hash(vm.device("data"))
        vm.power_off()
        # libvirt itself renames none that has checkpoints.
        name = f"{vm.name}-after"
        text = vm.virt.XMLDesc(0).replace(f"<name>{vm.name}</name>", f"<name>{name}</name>")
        vm.virt.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
        vm.connection.defineXML(text)
        vm.name = name
        again = rig.backup()
        assert again.base == made.snapshot and not again.disks[0].compared
        assert digest(rig.restore(again.snapshot)["vda"]) == content
        with rig.journal() as journal:
            assert journal.vm(NAME).where.startswith(f"{name} of")


def test_a_transient_domain(daemon: Libvirtd, tmp_path: Path) -> None:
    """It is gone with its end; started again, libvirt has forgotten its checkpoints."""
    with Domain(daemon, "transient", [one_disk(tmp_path)], transient=True) as vm:
        rig = VirtRig(tmp_path / "rig", vm)
        assert_exact(rig)
        vm.shut_off()
        with pytest.raises(errors.NotFound, match="discover"):
            rig.backup()
        vm.start()
        vm.wait_ready()
        vm.guest.write(vm.device("data"), MIB, MIB, seed="again")
        exact = rig.exact_backup()
        assert not exact.disk("data").compared
        assert digest(exact.image("data")) == vm.guest.hash(vm.device("data"))


# -- disks


def test_a_raw_disk_is_compared_and_spoils_nothing(daemon: Libvirtd, tmp_path: Path) -> None:
    raw = disks.Disk(disks.make_filled(tmp_path / "raw.img", 8 * MIB + 512, seed=3), "raw", "raw", "virtio-scsi")
    with Domain(daemon, "raw", [one_disk(tmp_path), raw]) as vm:
        rig = VirtRig(tmp_path / "rig", vm)
        assert_exact(rig)
        vm.guest.write(vm.device("data"), MIB, MIB, seed="tracked")
        vm.guest.write(vm.device("raw"), 2 * MIB, MIB, seed="ahead")
        ahead = rig.precopy()
        assert ahead.copied_bytes >= 2 * MIB
        last = 8 * MIB

        def late(_: Mapping[str, str]) -> None:
            vm.guest.write(vm.device("raw"), 4 * MIB, 64 * 1024, seed="late")
            vm.guest.write(vm.device("raw"), last, 512, seed="end")

        exact = rig.exact_backup(before_freeze=late)
        found, tracked = exact.disk("raw"), exact.disk("data")
        assert found.compared and "qcow2" in found.reason
        assert (found.precopied_bytes, found.residue_bytes) == (MIB, 64 * 1024 + 512)
        assert not tracked.compared and tracked.precopied_bytes == MIB
        assert digest(exact.image("raw")) == vm.guest.hash(vm.device("raw"))
        assert rig.checkpoints() == {"vda": ["base", "round"], "sda": []}


def test_a_disk_in_an_iothread_is_refused_before_it_can_hurt(daemon: Libvirtd, tmp_path: Path) -> None:
    threaded = disks.Disk(disks.make_filled(tmp_path / "io.qcow2", 4 * MIB, "qcow2"), "qcow2", "io", iothread=True)
    with Domain(daemon, "iothread", [threaded, one_disk(tmp_path)]) as vm:
        rig = VirtRig(tmp_path / "rig", vm)
        with pytest.raises(errors.Unsupported, match=r"vda .*iothread"):
            rig.backup()
        assert not vm.virt.listAllCheckpoints()
        assert "iothread" in rig.inspect().disks[0]["note"]
        without = VirtRig(tmp_path / "without", vm, excluded=("vda",))
        made = without.backup()
        assert [disk.name for disk in made.disks] == ["vdb"]
        assert vm.running


# -- the agent


def test_the_agents_channel_is_added_found_and_used(daemon: Libvirtd, tmp_path: Path) -> None:
    with Domain(daemon, "agent", [one_disk(tmp_path)], ports=[QGA]) as vm:
        cli = Cli(tmp_path / "cli")
        open_up(tmp_path / "cli" / "scratch")
        cli.run("init")
        cli.run("vm", "add", "web", "--libvirt", daemon.uri, vm.name)
        assert not cli.run("vm", "prepare", "web").json["running"]
        assert cli.run("vm", "prepare", "web", "--apply").json["applied"] == ["definition", "running VM"]
        assert cli.run("vm", "prepare", "web", "--apply").json["applied"] == []
        vm.wait_connected(AGENT)
        [found] = [each for each in cli.run("vm", "discover", daemon.uri).json["domains"] if each["name"] == vm.name]
        assert found["added"] == "web" and found["agent"] and found["state"] == "running"
        assert cli.run("precopy", "web", "--transport", "agent").json["transport"] == "agent"
        made = cli.run("backup", "web").json
        assert made["disks"][0]["precopied_bytes"] > 0
        cli.run("restore", made["snapshot"], tmp_path / "out", "--format", "raw")
        assert digest(tmp_path / "out" / "vda.raw") == vm.guest.hash(vm.device("data"))
        assert "<domain" in (tmp_path / "out" / "definition.xml").read_text()
        cli.run("vm", "remove", "web")


def test_the_agent_freezes_where_there_is_no_qga(daemon: Libvirtd, tmp_path: Path) -> None:
    image = disks.Disk(disks.make_ext4(tmp_path / "system.qcow2", 24 * MIB, "qcow2"), "qcow2", "system")
    with Domain(daemon, "freeze", [image], ports=[AGENT]) as vm:
        vm.guest.mount(vm.device("system") + "1", "/mnt")
        rig = VirtRig(tmp_path / "rig", vm)
        assert rig.backup().consistency == "filesystem"
        vm.guest.run("touch /mnt/thawed")
