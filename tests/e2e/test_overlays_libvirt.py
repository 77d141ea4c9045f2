"""Raw disks of libvirt's on overlays of ours: exact, with their head start over every end of QEMU, libvirtd and the
tool, and gone without a trace when their owner wants that."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from headstart.backup.complete import Options
from headstart.backup.transport import Transport
from headstart.hypervisor.libvirt import overlaying
from headstart.state.journal import Journal
from headstart.tracking.choice import Wish
from tests.e2e.rig import NAME, Exact, digest
from tests.e2e.virt import VirtRig
from tests.kit import disks, workloads
from tests.kit.cli import Cli
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd

pytestmark = pytest.mark.vm

MIB = disks.MIB
BLOCK = 64 * 1024
DATA_SIZE = 32 * MIB + 5 * disks.SECTOR
#: Nothing else writes here.
QUIET = 20 * MIB


class Layered:
    """A domain with a qcow2 and a raw disk, which the owner wants to be recorded by overlays."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        folder.chmod(0o755)
        self.raw = disks.make_filled(folder / "data.raw", DATA_SIZE)
        self.system = disks.make_filled(folder / "system.qcow2", 8 * MIB, "qcow2")
        data = disks.Disk(self.raw, "raw", "data", interface="virtio-scsi")
        system = disks.Disk(self.system, "qcow2", "system")
        self.daemon = stack.enter_context(Libvirtd())
        self.vm = stack.enter_context(Domain(self.daemon, "layered", (system, data)))
        self.rig = VirtRig(folder / "rig", self.vm, track=Wish.OVERLAY)
        self._seeds = itertools.count()

    def write(self, first: int, count: int, start: int = QUIET) -> None:
        """Blocks of the raw disk, synced."""
        device = self.vm.device("data")
        self.vm.guest.write(device, start + first * BLOCK, count * BLOCK, seed=next(self._seeds))

    def again(self) -> None:
        """Its owner starts the domain as it is defined."""
        self.vm.virt.create()
        self.vm.follow()

    def define_without(self) -> None:
        """Its owner lets it be started from the images themselves."""
        root = ElementTree.fromstring(self.vm.virt.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        for disk, image in zip(root.iterfind("devices/disk"), self.vm.disks, strict=True):
            for each in disk.findall("backingStore"):
                disk.remove(each)
            disk.find("source").set("file", str(image.path))  # type: ignore[union-attr]
            disk.find("driver").set("type", image.format)  # type: ignore[union-attr]
        self.vm.connection.defineXML(ElementTree.tostring(root, encoding="unicode"))

    def kill(self, moment: str, place: str) -> None:
        """The tool, in the middle of a backup that has a head start."""
        self.write(0, 8)
        self.rig.precopy()
        self.write(2, 4)
        process = Cli(self.rig.folder).start("backup", NAME, faults=[moment, place])
        said = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, said

    def throw_away(self) -> None:
        """What was set aside."""
        for path in self.raw.parent.glob("*.headstart.aside-*"):
            path.resolve().unlink()
            path.unlink()

    def exact(self, options: Options | None = None, *, compared: bool = False) -> Exact:
        """A backup of what the guest reads."""
        exact = self.rig.exact_backup(options)
        for name in ("data", "system"):
            found = exact.disk(name)
            assert found.tracking == "overlay"
            assert found.compared is compared, found.reason
        self.assert_sane(3)
        return exact

    def assert_same(self, exact: Exact) -> None:
        for name in ("data", "system"):
            assert digest(exact.image(name)) == self.vm.guest.hash(self.vm.device(name))

    def files(self, name: str, *, defined: bool = False) -> list[Path]:
        text = self.vm.virt.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE if defined else 0)
        return overlaying.files(ElementTree.fromstring(text), self.vm.target(name))

    def assert_sane(self, most: int) -> None:
        """libvirt, the definition and qemu-img see the same chain, and there is no other file of ours."""
        for name, image in (("data", self.raw), ("system", self.system)):
            files = self.files(name)
            assert files[-1] == image and len(files) <= most
            assert self.files(name, defined=True)[0] == files[0]
            assert set(self.files(name, defined=True)) <= set(files)
            told = subprocess.run(
                ["qemu-img", "info", "-U", "--backing-chain", "--output=json", files[0]],
                capture_output=True,
                check=True,
                timeout=20,
            ).stdout
            assert [Path(each["filename"]) for each in json.loads(told)] == files
            assert set(image.parent.glob(f"{image.name}.headstart-????????-????????")) == set(files[:-1])
        assert not self.vm.virt.snapshotNum()


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layered]:
    with contextlib.ExitStack() as stack:
        made = Layered(tmp_path_factory.mktemp("layered"), stack)
        made.rig.backup()
        yield made


def test_rounds_and_backups_under_constant_writes(layered: Layered) -> None:
    rig, machine = layered.rig, layered.vm
    regions = [workloads.Region(machine.device("data"), 4 * MIB, 12 * MIB)]
    with workloads.churn(machine.guest, regions, rate=6 * MIB, write_size=BLOCK // 4, sync_every=4) as churn:
        for number in range(2):
            for turn in range(2):
                churn.wait_changed((2 * number + turn) * MIB)
                layered.write(16 * turn, 16)
                # That something counts adds nothing where the host read it: it is on the disk.
                rig.precopy(transport=(Transport.HOST, Transport.AGENT)[turn])
                layered.assert_sane(2 + turn)
            options = Options(plain=number == 1)
            found = layered.exact(options).disk("data")
            assert number == 1 or found.precopied_bytes >= 2 * MIB
    layered.assert_same(layered.exact())


def test_a_restart_keeps_the_head_start(layered: Layered) -> None:
    layered.write(0, 16)
    layered.rig.precopy()
    layered.write(32, 4)
    layered.vm.power_off()
    layered.again()
    exact = layered.exact()
    assert exact.disk("data").precopied_bytes >= 16 * BLOCK
    assert exact.disk("data").changed_bytes < 2 * MIB
    layered.assert_same(exact)


#: Where the tool is killed: between all steps that leave something on the disk or in libvirt.
PLACES = [
    ("--after", "headstart.hypervisor.overlays:Place.create:1"),
    ("--after", "headstart.hypervisor.libvirt.overlaying:Overlaying._snapshot:1"),
    ("--before", "headstart.hypervisor.libvirt.overlaying:Overlaying._wait:1"),
    ("--before", "headstart.hypervisor.libvirt.overlaying:Overlaying._clear_away:1"),
    ("--before", "headstart.backup.publish:run:1"),
]


@pytest.mark.parametrize(("moment", "place"), PLACES)
def test_the_tool_is_killed(layered: Layered, moment: str, place: str) -> None:
    layered.kill(moment, place)
    layered.write(4, 4)
    exact = layered.exact()
    assert "publish" in place or exact.disk("data").precopied_bytes >= 2 * BLOCK
    layered.assert_same(exact)


def test_the_host_dies(layered: Layered) -> None:
    """The tool, libvirtd and QEMU at once, with an overlay that nobody had noted the end of."""
    layered.kill(*PLACES[1])
    layered.daemon.stop(signal.SIGKILL)
    os.kill(layered.vm.pid, signal.SIGKILL)
    layered.daemon.start()
    layered.vm.wait_off()
    layered.again()
    layered.write(4, 4)
    exact = layered.exact()
    assert exact.disk("data").precopied_bytes >= 2 * BLOCK
    layered.assert_same(exact)


def test_a_commit_of_the_owners_is_compared_and_told(layered: Layered) -> None:
    """One level down, and into the image."""
    layered.write(0, 4)
    layered.rig.precopy()
    layered.write(8, 4)
    layered.vm.power_off()
    top, *_ = layered.files("data")
    subprocess.run(["qemu-img", "commit", "-q", "-d", "-b", layered.raw, top], check=True, timeout=20)
    subprocess.run(["qemu-img", "commit", "-q", top], check=True, timeout=20)
    layered.again()
    exact = layered.rig.exact_backup()
    assert exact.disk("data").compared and not exact.disk("system").compared
    assert any("somebody wrote to " in note for note in exact.report.notes)
    layered.assert_same(exact)


def test_a_domain_that_is_off_and_is_defined_anew_with_its_images(layered: Layered) -> None:
    """It is backed up with its overlays; these are set aside when its owner starts it without them."""
    rig, vm = layered.rig, layered.vm
    layered.write(0, 4)
    rig.precopy()
    layered.write(2, 4)
    expected = vm.guest.hash(vm.device("data"))
    vm.power_off()
    report = rig.backup()
    assert report.consistency == "offline"
    assert digest(rig.restore(report.snapshot)[vm.target("data")]) == expected
    layered.define_without()
    layered.again()
    exact = rig.exact_backup()
    assert exact.disk("data").compared
    assert sum("was set aside" in note for note in exact.report.notes) == 1, "nobody wrote to the other one"
    layered.assert_same(exact)
    layered.throw_away()
    layered.write(0, 1)
    layered.assert_same(layered.exact())


def test_a_snapshot_of_the_owners_ends_the_recording_until_it_is_gone(layered: Layered) -> None:
    rig, vm = layered.rig, layered.vm
    target = vm.target("data")
    theirs = layered.raw.with_name("theirs.qcow2")
    xml = f"""<domainsnapshot><disks>
        <disk name='{target}' snapshot='external'><source file='{theirs}'/></disk>
        <disk name='{vm.target("system")}' snapshot='no'/></disks></domainsnapshot>"""
    vm.virt.snapshotCreateXML(xml, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    layered.write(0, 4)
    exact = rig.exact_backup()
    assert any("somebody's overlay stands on one of ours" in note for note in exact.report.notes)
    layered.assert_same(exact)
    assert layered.files("data")[0] == theirs
    vm.virt.blockCommit(target, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    while not vm.virt.blockJobInfo(target)["end"] or "ready='yes'" not in vm.virt.XMLDesc(0):
        time.sleep(0.05)
    vm.virt.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    for each in vm.virt.listAllSnapshots():
        each.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
    theirs.unlink()
    layered.write(4, 4)
    exact = rig.exact_backup()
    layered.assert_same(exact)
    layered.throw_away()
    layered.write(4, 4)
    layered.assert_same(layered.exact())


@pytest.mark.parametrize("off", [False, True])
def test_a_release_leaves_no_trace(layered: Layered, off: bool) -> None:
    """Also of a domain that is off, and where it was killed half-way."""
    rig, vm = layered.rig, layered.vm
    layered.write(0, 4)
    expected = vm.guest.hash(vm.device("data"))
    fault = ["--before", "headstart.hypervisor.libvirt.overlaying:Overlaying._clear_away:1"]
    if off:
        vm.power_off()
        fault[1] = "headstart.hypervisor.libvirt.overlaying:Overlaying._wait:1"
    process = Cli(rig.folder).start("vm", "release", NAME, faults=fault)
    said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    if off:
        layered.vm.wait_off()
    rig.release()
    layered.assert_sane(1)
    assert not [*layered.raw.parent.glob("*.headstart*")]
    assert vm.running is not off
    if off:
        layered.again()
    assert vm.guest.hash(vm.device("data")) == expected
    layered.exact(compared=True)


def test_another_wish_takes_them_off(layered: Layered) -> None:
    layered.rig.precopy()
    layered.write(0, 4)
    with Journal.open(layered.rig.state) as journal:
        journal.track(NAME, Wish.BITMAP)
    exact = layered.rig.exact_backup()
    assert exact.disk("data").tracking == "comparison"
    layered.assert_sane(1)
    layered.assert_same(exact)
    with Journal.open(layered.rig.state) as journal:
        journal.track(NAME, Wish.AUTO)
    assert layered.rig.exact_backup().disk("data").tracking == "comparison", "nobody asked for overlays"
