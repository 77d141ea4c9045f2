"""VMs to hold the contract of ``headstart.hypervisor`` against: one in memory, two of QEMU's."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

import libvirt
import pytest

from headstart import units
from headstart.blocks import Blocks
from headstart.guest import agent
from headstart.guest.only.machine import GuestMachine
from headstart.hypervisor.contract import Machine, Protects, Remove
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.libvirt import counters as libvirt_counters
from headstart.hypervisor.libvirt.machine import LibvirtMachine
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.hypervisor.memory import counters as memory_counters
from headstart.hypervisor.qemu import counters as qemu_counters
from headstart.hypervisor.qemu.machine import QemuMachine
from tests.kit import disks, era, layers, ledger, workloads
from tests.kit.domain import Domain
from tests.kit.libvirtd import Libvirtd
from tests.kit.vm import Vm

INSTALLATION = "0123abcd"


class Proof(Protocol):
    """A guest that writes all the time, and what that says of a point in time taken meanwhile."""

    #: Blocks that have been written for certain, once the guest has stopped.
    written: dict[str, Blocks]

    def wait(self) -> None:
        """Let the guest write something."""
        ...

    def before(self) -> None:
        """A point in time is about to be taken."""
        ...

    def after(self, contents: Mapping[str, bytes]) -> None:
        """This is what it holds. Judged when the guest has stopped."""
        ...


@dataclass(frozen=True, slots=True)
class Traits:
    """What a driver may be unable to do: freeze a bitmap, let go of a part of a point, let a disk be unplugged
    while a point stands, look at the VM from outside (its definition, serial numbers, counters), reserve space."""

    stops: bool = True
    narrows: bool = True
    unplugs: bool = True
    outside: bool = True
    #: A VM that overlays record has to be made ready to be migrated.
    anchors: bool = True


class Subject(Protocol):
    traits: Traits
    protects: Protects
    block_size: int
    sizes: dict[str, int]
    formats: dict[str, str]
    #: Disks whose marks outlast a clean end of the VM.
    lasting: frozenset[str]
    unreadable: frozenset[str]

    def connect(self) -> Machine: ...

    def look(self) -> Counters:
        """At the counters, without a connection that stays."""
        ...

    def write(self, disk: str, block: int) -> None:
        """The guest writes something new, and it is on the disk."""
        ...

    def contents(self, disk: str) -> bytes:
        """What the guest reads."""
        ...

    def writing(self) -> contextlib.AbstractContextManager[Proof]: ...

    def unplug(self) -> str:
        """The owner takes a disk out of the running VM; its name."""
        ...

    def plug(self) -> None: ...

    def leftovers(self) -> list[str]:
        """What of ours stands in the VM or lies in the scratch directory, besides bitmaps."""
        ...


class MemorySubject:
    traits = Traits()
    protects = Protects.ALL
    unreadable: frozenset[str] = frozenset()

    def __init__(self, *, iothread: bool = False, checkpoints: bool = False, overlays: bool = False) -> None:
        self.block_size = 512
        self.sizes = {"system": 512 * 96, "data": 512 * 64 + 40}
        self.formats = {"system": "qcow2", "data": "qcow2" if checkpoints else "raw"}
        iothreads = ("system",) if iothread else ()
        raw = () if checkpoints else ("data",)
        self.lasting = frozenset(self.sizes) - (frozenset() if overlays else frozenset(raw))
        self.vm = MemoryVm(
            self.sizes,
            self.block_size,
            raw=raw,
            iothreads=iothreads,
            checkpoints=checkpoints,
            overlays=raw if overlays else (),
        )
        if checkpoints:
            self.traits = Traits(stops=False, narrows=False)
        self.vm.agent = "answers"
        for disk in self.sizes:
            for block in range(0, self.vm.count(disk), 2):
                self.vm.write(disk, block)
        if iothread:
            self.protects = Protects.WANTED
            self.unreadable = frozenset(iothreads)

    def connect(self) -> Machine:
        return MemoryMachine(self.vm, INSTALLATION, self.block_size)

    def look(self) -> Counters:
        return memory_counters.look(self.vm)

    def write(self, disk: str, block: int) -> None:
        self.vm.write(disk, block)

    def contents(self, disk: str) -> bytes:
        return self.vm.data(disk)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Proof]:
        proof = MemoryProof(self.vm)
        self.vm.meanwhile = proof.step
        try:
            yield proof
        finally:
            self.vm.meanwhile = lambda _step: None
            self.vm.drain()

    def unplug(self) -> str:
        self.vm.unplug("data")
        return "data"

    def plug(self) -> None:
        self.vm.plug("data")

    def leftovers(self) -> list[str]:
        return self.vm.leftovers()


class MemoryProof:
    def __init__(self, vm: MemoryVm) -> None:
        self._vm = vm
        self._random = random.Random(1)
        self.written = {disk: Blocks() for disk in vm.drives}

    def step(self, _name: str) -> None:
        if not self._vm.can_write:
            return
        for disk in self._vm.drives:
            block = self._random.randrange(self._vm.count(disk))
            write = self._vm.begin(disk, block, visible=self._random.choice(("old", "torn", "new")))
            if self._random.random() < 0.7:
                write.finish()
            self.written[disk].add(block)

    def wait(self) -> None:
        for _ in range(5):
            self.step("wait")

    def before(self) -> None:
        """The VM itself keeps the truth."""

    def after(self, contents: Mapping[str, bytes]) -> None:
        for disk, found in contents.items():
            assert found == self._vm.data(disk, self._vm.at_point[disk])


class QemuSubject:
    """``system``: virtio-blk and qcow2, in an iothread for the push variant; ``data``: virtio-scsi, raw, odd."""

    traits = Traits()
    block_size = units.BLOCK_SIZE
    vm: Vm | Domain
    protects: Protects
    unreadable: frozenset[str]

    def __init__(self, vm: Vm, scratch: Path, *, layered: bool = False) -> None:
        self.vm = vm
        self._scratch = scratch
        self._layered = layered
        self._seeds = itertools.count(1)
        self.lasting = frozenset({"dev-system", "dev-data"} if layered else {"dev-system"})
        self.sizes = {"dev-system": 8 * units.MIB, "dev-data": 4 * units.MIB + 5 * 512}
        self.formats = {"dev-system": "qcow2", "dev-data": "raw"}
        pushed = any(disk.iothread for disk in vm.disks)
        self.protects = Protects.WANTED if pushed else Protects.ALL
        self.unreadable = frozenset(disk.device_id for disk in vm.disks if disk.iothread)

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, *, iothread: bool, layered: bool = False) -> Iterator[QemuSubject]:
        """``layered``: ``data`` is started from an overlay of ours."""
        system = disks.make_filled(folder / "system.qcow2", 8 * units.MIB, "qcow2")
        data = disks.make_filled(folder / "data.raw", 4 * units.MIB + 5 * 512)
        pair = (
            disks.Disk(system, "qcow2", "system", iothread=iothread),
            disks.Disk(
                layers.cover(data, INSTALLATION) if layered else data,
                "qcow2" if layered else "raw",
                "data",
                interface="virtio-scsi",
            ),
        )
        with Vm(pair) as vm:
            (folder / "scratch").mkdir()
            yield cls(vm, folder / "scratch", layered=layered)

    def connect(self) -> Machine:
        assert isinstance(self.vm, Vm)
        return QemuMachine(
            self.vm.qmp_socket,
            installation=INSTALLATION,
            scratch=self._scratch,
            label="vm",
            qga=self.vm.qga_socket,
            layered=self._layered,
        )

    def look(self) -> Counters:
        assert isinstance(self.vm, Vm)
        return qemu_counters.look(self.vm.qmp_socket)

    def _device(self, disk: str) -> str:
        return self.vm.device(disk.removeprefix("dev-"))

    def write(self, disk: str, block: int) -> None:
        start = block * self.block_size
        length = min(self.block_size, self.sizes[disk] - start)
        self.vm.guest.write(self._device(disk), start, length, seed=f"{disk} {next(self._seeds)}")

    def contents(self, disk: str) -> bytes:
        return self.vm.guest.read(self._device(disk), 0, self.sizes[disk])

    @contextlib.contextmanager
    def writing(self) -> Iterator[Proof]:
        devices = [self._device(disk) for disk in self.sizes]
        # All over the disks: a write that falls into a gap of the tracking must not be covered up by the next ones.
        running = workloads.ledger(
            self.vm.guest, devices, seed=next(self._seeds), offset=256 * units.KIB, slots=310, record=12 * units.KIB
        )
        proof = LedgerProof(running, list(self.sizes), self._scratch)
        proof.wait()
        with running:
            yield proof
        proof.judge()

    def unplug(self) -> str:
        self.vm.qmp("device_del", id="dev-data")
        while any("dev-data" in entry["qdev"] for entry in self.vm.qmp("query-block")):
            time.sleep(0.01)
        return "dev-data"

    def plug(self) -> None:
        top = "data"
        if self._layered:
            [segment] = {path.readlink().name for path in self.vm.disk("data").path.parent.glob("*.headstart")}
            node = f"headstart-{INSTALLATION}-{segment.rpartition('-')[2]}"
            there = {each["node-name"] for each in self.vm.qmp("query-named-block-nodes", flat=True)}
            top = node if node in there else top
        self.vm.qmp("device_add", driver="scsi-hd", bus="bus-data.0", id="dev-data", drive=top, serial="data")
        while "data" not in self.vm.guest.call("devices"):
            time.sleep(0.05)

    def leftovers(self) -> list[str]:
        nodes = {node["node-name"] for node in self.vm.qmp("query-named-block-nodes", flat=True)}
        graph = self.vm.qmp("x-debug-query-block-graph")
        return [
            *(node for node in nodes if node.startswith("hs-")),
            *(node["name"] for node in graph["nodes"] if node["name"].startswith("hs-")),
            *(export["id"] for export in self.vm.qmp("query-block-exports")),
            *(job["id"] for job in self.vm.qmp("query-jobs")),
            *(path.name for path in self._scratch.iterdir()),
            *([] if self.vm.qmp("query-status")["running"] else ["stopped"]),
        ]


class GuestSubject(QemuSubject):
    """The same, without its hypervisor: filters in the guest record both disks."""

    traits = Traits(stops=False, narrows=False, unplugs=False, outside=False)
    protects = Protects.ALL
    unreadable = frozenset()

    def __init__(self, vm: Vm, scratch: Path) -> None:
        self.vm = vm
        self._scratch = scratch
        self._seeds = itertools.count(1)
        self.sizes = {"system": 8 * units.MIB, "data": 4 * units.MIB + 5 * 512}
        self.formats = dict.fromkeys(self.sizes, "raw")
        self.lasting = frozenset(self.sizes)

    @classmethod
    @contextlib.contextmanager
    def alone(cls, folder: Path) -> Iterator[GuestSubject]:
        made = [
            disks.Disk(disks.make_filled(folder / "system.qcow2", 8 * units.MIB, "qcow2"), "qcow2", "system"),
            disks.Disk(disks.make_filled(folder / "data.raw", 4 * units.MIB + 5 * 512), "raw", "data"),
        ]
        for name in ("system", "data"):
            companion = disks.make_empty(folder / f"{name}-companion.raw", 48 * units.MIB)
            made.append(disks.Disk(companion, "raw", f"c-{name}"))
        with Vm([*made, era.disk(folder)]) as vm:
            (folder / "scratch").mkdir()
            filters = era.Filters(vm.guest, vm.device("era"))
            for name in ("system", "data"):
                filters.run("add", name, vm.device(name), vm.device(f"c-{name}"))
            yield cls(vm, folder / "scratch")

    def connect(self) -> Machine:
        assert isinstance(self.vm, Vm)
        session = agent.connect(str(self.vm.agent_socket))
        return GuestMachine(session, installation=INSTALLATION, block_size=self.block_size)

    def _device(self, disk: str) -> str:
        return f"/dev/mapper/{disk}"

    def leftovers(self) -> list[str]:
        found = self.vm.guest.run("cat /sys/block/dm-*/dm/name", check=False).output.split()
        return [name for name in found if name.endswith(("-point", "-cow"))]


class LibvirtSubject(QemuSubject):
    """``vda``: virtio-blk; ``sda``: virtio-scsi, of an odd number of sectors. Both qcow2: raw has no checkpoints. With
    ``layered`` raw: overlays of ours record them."""

    protects = Protects.ALL
    unreadable = frozenset()

    vm: Domain

    def __init__(self, vm: Domain, scratch: Path, *, layered: bool) -> None:
        self.vm = vm
        self._unplugged = ""
        self.traits = Traits(stops=layered, narrows=False, unplugs=False, anchors=False)
        self._scratch = scratch
        self._layered = layered
        self._seeds = itertools.count(1)
        self.sizes = {"vda": 8 * units.MIB, "sda": 4 * units.MIB + 5 * 512}
        self.formats = dict.fromkeys(self.sizes, "raw" if layered else "qcow2")
        self.lasting = frozenset(self.sizes)

    def unplug(self) -> str:
        # As it is now: it may stand on an overlay.
        self._unplugged = self._device_xml()
        self.vm.virt.detachDevice(self._unplugged)
        while "sda" in self.vm.virt.XMLDesc(0):
            time.sleep(0.05)
        return "sda"

    def plug(self) -> None:
        self.vm.virt.attachDevice(self._unplugged)
        while "data" not in self.vm.guest.call("devices"):
            time.sleep(0.05)

    def _device_xml(self) -> str:
        root = ElementTree.fromstring(self.vm.virt.XMLDesc(0))
        found = root.find("devices/disk/target[@dev='sda']/..")
        assert found is not None
        for each in (*found.findall("backingStore"), *found.findall("alias")):
            found.remove(each)
        return ElementTree.tostring(found, encoding="unicode")

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, *, layered: bool) -> Iterator[LibvirtSubject]:
        form: disks.Format = "raw" if layered else "qcow2"
        system = disks.make_filled(folder / f"system.{form}", 8 * units.MIB, form)
        data = disks.make_filled(folder / f"data.{form}", 4 * units.MIB + 5 * 512, form)
        pair = (
            disks.Disk(system, form, "system"),
            disks.Disk(data, form, "data", interface="virtio-scsi"),
        )
        (folder / "scratch").mkdir(mode=0o711)
        with Libvirtd() as daemon, Domain(daemon, "contract", pair) as vm:
            yield cls(vm, folder / "scratch", layered=layered)

    def connect(self) -> Machine:
        return LibvirtMachine(
            self.vm.daemon.uri,
            self.vm.name,
            installation=INSTALLATION,
            scratch=self._scratch,
            label="vm",
            layered=self._layered,
            prepared=self._layered,
        )

    def look(self) -> Counters:
        return libvirt_counters.look(self.vm.daemon.uri, self.vm.name)

    def _device(self, disk: str) -> str:
        return self.vm.device({"vda": "system", "sda": "data"}[disk])

    def leftovers(self) -> list[str]:
        return [
            *(path.name for path in self._scratch.rglob("*") if not path.is_dir()),
            *(["job"] if self.vm.virt.jobStats()["type"] else []),
            *([] if self.vm.virt.isActive() and self.vm.state == libvirt.VIR_DOMAIN_RUNNING else ["stopped"]),
        ]


class LedgerProof:
    def __init__(self, running: workloads.Ledger, names: list[str], folder: Path) -> None:
        self._running = running
        self._names = names
        self._folder = folder
        self._acknowledged = 0
        self._points: list[tuple[int, Mapping[str, bytes]]] = []
        self.written: dict[str, Blocks] = {name: Blocks() for name in names}

    def wait(self) -> None:
        self._running.wait_acknowledged(self._running.acknowledged() + 20)

    def before(self) -> None:
        self._acknowledged = self._running.acknowledged()

    def after(self, contents: Mapping[str, bytes]) -> None:
        self._points.append((self._acknowledged, contents))

    def judge(self) -> None:
        layout, last = self._running.layout, self._running.acknowledged()
        for number in range(1, last + 1):
            disk, slot = layout.place(number)
            first, end = layout.position(slot), layout.position(slot) + layout.record
            self.written[self._names[disk]].add_range(first // units.BLOCK_SIZE, -(-end // units.BLOCK_SIZE))
        for acknowledged, contents in self._points:
            images = [self._folder / f"{name}.point" for name in self._names]
            for name, image in zip(self._names, images, strict=True):
                image.write_bytes(contents[name])
            ledger.check(layout, images, acknowledged=acknowledged, begun=last + 1)
            for image in images:
                image.unlink()


@pytest.fixture
def machine(subject: Subject) -> Iterator[Machine]:
    """A connection; a test may leave bitmaps behind, and nothing else."""
    connection = subject.connect()
    yield connection
    connection.transact([Remove(disk, each.name) for disk, found in connection.bitmaps().items() for each in found])
    connection.close()
    assert subject.leftovers() == []
