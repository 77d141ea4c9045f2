"""Which device of the guest a disk is, and where its volumes lie."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headstart import blocks
from headstart.agentd import messages, segments
from headstart.extents import Extent
from headstart.guest import devices, mapping
from headstart.guest.channel import Channel, Refused
from headstart.guest.devices import GuestDisk, GuestMap, Volume
from headstart.guest.mapping import Unproved
from headstart.guest.reader import AgentReader
from headstart.hypervisor.inventory import Disk
from headstart.units import KIB, MIB
from headstart.wire.files import FileReader
from tests.guest import hostile
from tests.guest.hostile import Guest
from tests.kit import disks
from tests.kit.nbd import sparse
from tests.kit.vm import Vm

SIZE = 2 * MIB


def told_disk(name: str, size: int = SIZE, serial: str = "", wwn: str = "", pci: str = "") -> GuestDisk:
    return GuestDisk(name, size, serial, wwn, pci)


# -- names


@pytest.mark.parametrize(
    ("disk", "found"),
    [
        (Disk("d", SIZE, "raw", serial="a-serial-number-that-is-long"), ["vda"]),
        (Disk("d", SIZE, "raw", serial="short", wwn="5000000000000001"), ["sda"]),
        (Disk("d", SIZE, "raw", pci="0000:00:05.0"), ["vdb"]),
        (Disk("d", SIZE, "raw", serial="unheard of"), ["vda", "vdb", "sda", "sdb"]),
        (Disk("d", SIZE + 512, "raw", serial="short"), ["vdc"]),
        (Disk("d", 512, "raw", serial="short"), []),
    ],
)
def test_candidates_have_the_best_name_that_is_there(disk: Disk, found: list[str]) -> None:
    guest = GuestMap(
        (
            told_disk("vda", serial="a-serial-number-that"),
            told_disk("vdb", pci="0000:00:05.0"),
            told_disk("sda", wwn="naa.5000000000000001"),
            told_disk("sdb", serial="something else"),
            told_disk("vdc", SIZE + 512, serial="other"),
        ),
        (),
        (),
    )
    assert [device.name for device in mapping.candidates(disk, guest)] == found


# -- proof


@dataclass
class Answers:
    """A guest whose devices have these contents; ``lie`` changes what it says."""

    contents: Mapping[str, bytes]
    lie: Any = None

    def __call__(self, guest: Guest) -> None:
        while True:
            frame = guest.next(messages.ASK)
            told = messages.unpack_json(frame.payload)
            if self.lie is not None:
                guest.tell(messages.ANSWER, frame.request, digests=self.lie)
                continue
            content, key = self.contents[told["device"]], bytes.fromhex(told["key"])
            found = [
                hashlib.blake2b(content[start : start + length], digest_size=32, key=key).hexdigest()
                for start, length in told["spans"]
            ]
            guest.tell(messages.ANSWER, frame.request, digests=found)


def prove(folder: Path, answers: Answers, names: Sequence[str], written: Sequence[Extent] = (Extent(0, SIZE),)) -> str:
    sparse(folder / "image", SIZE, list(written))
    disk = Disk("data", SIZE, "raw")
    with (
        hostile.playing(answers) as link,
        Channel(link) as channel,
        FileReader(folder / "image") as reader,
    ):
        allocated = blocks.of_extents(written, mapping.BLOCK)
        return mapping.prove(channel, disk, [told_disk(name) for name in names], reader, allocated)


def test_the_one_with_its_content(tmp_path: Path) -> None:
    content = sparse(tmp_path / "same", SIZE, [Extent(0, SIZE)])
    other = bytes(reversed(content))
    assert prove(tmp_path, Answers({"vda": other, "vdb": content}), ["vda", "vdb"]) == "vdb"


def test_two_with_the_same_content_are_not_told_apart(tmp_path: Path) -> None:
    content = sparse(tmp_path / "same", SIZE, [Extent(0, SIZE)])
    with pytest.raises(Unproved, match="same content"):
        prove(tmp_path, Answers({"vda": content, "vdb": content}), ["vda", "vdb"])


@pytest.mark.parametrize(
    "lie", [None, [], [None] * 96, ["x"] * 96, "digests", {"a": 1}, [[]] * 6, [""] * 96, [float("inf")]], ids=str
)
def test_lies_prove_nothing(tmp_path: Path, lie: Any) -> None:
    with pytest.raises(Unproved):
        prove(tmp_path, Answers({"vda": bytes(SIZE)}, lie), ["vda"])


def test_a_blank_disk_and_none_at_all_and_too_many(tmp_path: Path) -> None:
    with pytest.raises(Unproved, match="blank"):
        prove(tmp_path, Answers({"vda": bytes(SIZE)}), ["vda"], [])
    with pytest.raises(Unproved, match="no disk"):
        prove(tmp_path, Answers({}), [])
    with pytest.raises(Unproved, match="100 disks"):
        prove(tmp_path, Answers({}), ["vda"] * 100)


# -- volumes of a real guest

#: In the guest: makes device-mapper devices by the kernel's own interface (include/uapi/linux/dm-ioctl.h).
MAKE = """
import fcntl, json, os, struct, sys
HEAD, TARGET = struct.Struct("=3IIIIiIIIQ128s129s7s"), struct.Struct("=QQiI16s")
control = os.open("/dev/mapper/control", os.O_RDWR)
def do(number, name, uuid="", data=b"", count=0):
    head = HEAD.pack(4, 0, 0, HEAD.size + len(data), HEAD.size, count, 0, 0, 0, 0, 0, name.encode(), uuid.encode(), b"")
    fcntl.ioctl(control, 3 << 30 | HEAD.size << 16 | 0xFD << 8 | number, bytearray(head + data))
def target(start, length, kind, text):
    text = text.encode() + bytes(8 - len(text) % 8)
    return TARGET.pack(start, length, 0, TARGET.size + len(text), kind.encode()) + text
for name, uuid, table in json.loads(sys.argv[1]):
    if table:
        do(3, name, uuid)
        do(9, name, "", b"".join(target(*line) for line in table), len(table))
        do(6, name)
    else:
        do(4, name)
"""
#: A line of a device-mapper table, in sectors.
Line = tuple[int, int, str, str]
SECTOR = 512
DISK_SIZE = 24 * MIB


def partitioned(path: Path, seed: int, script: str) -> Path:
    path.write_bytes(random.Random(seed).randbytes(DISK_SIZE))
    subprocess.run(["/sbin/sfdisk", "-q", "--wipe", "never", path], input=script, text=True, check=True)
    return path


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """GPT on virtio-blk, MBR with a logical partition on virtio-scsi; random content everywhere."""
    folder = tmp_path_factory.mktemp("volumes")
    gpt = "label: gpt\nstart=2048, size=16384\nstart=18439, size=12345\n"
    mbr = "label: dos\nstart=63, size=14000\nstart=16384, size=30000, type=5\nstart=17001, size=20011, type=83\n"
    chosen = (
        disks.Disk(partitioned(folder / "gpt", 1, gpt), "raw", "gpt"),
        disks.Disk(partitioned(folder / "mbr", 2, mbr), "raw", "mbr", interface="virtio-scsi"),
    )
    with Vm(chosen) as vm:
        yield vm


@pytest.fixture
def channel(machine: Vm) -> Iterator[Channel]:
    link = socket.socket(socket.AF_UNIX)
    link.connect(str(machine.agent_socket))
    with Channel(link, seconds=60) as channel:
        yield channel


def shuffled(source: random.Random, sizes: Mapping[str, int]) -> list[tuple[str, str, list[Line]]]:
    """Volumes on the partitions (their sizes in sectors), and on those volumes; no sector belongs to two."""
    free = dict.fromkeys(sizes, 0)

    def take(name: str, length: int) -> int:
        start = free[name] + source.randrange(9)
        free[name] = start + length
        assert free[name] <= sizes[name], "too much for the partitions"
        return start

    linear: list[Line] = []
    at = 0
    for name in source.sample(sorted(sizes), 4) + source.sample(sorted(sizes), 2):
        length = source.randrange(1, 1500)
        linear.append((at, length, "linear", f"/dev/{name} {take(name, length)}"))
        at += length
    chunk = source.choice([8, 16, 128])
    columns = source.choice([2, 3])
    rows = source.randrange(2, 3000 // chunk)
    striped: list[Line] = [
        stripes(0, chunk, [(name, take(name, rows * chunk)) for name in source.sample(sorted(sizes), columns)], rows)
    ]
    size = rows * chunk * columns
    skipped = source.randrange(columns * rows) * chunk
    upper: list[Line] = [
        (0, 7, "linear", f"/dev/mapper/linear {at - 9}"),
        (7, size - skipped, "linear", f"/dev/mapper/striped {skipped}"),
        (7 + size - skipped, at - 20, "linear", "/dev/mapper/linear 3"),
    ]
    return [("linear", "LVM-" + "x" * 64, linear), ("striped", "", striped), ("upper", "", upper)]


def stripes(start: int, chunk: int, columns: list[tuple[str, int]], rows: int) -> Line:
    text = f"{len(columns)} {chunk} " + " ".join(f"/dev/{name} {begin}" for name, begin in columns)
    return (start, rows * chunk * len(columns), "striped", text)


def in_guest(vm: Vm, tables: list[tuple[str, str, list[Line]]]) -> None:
    script, told = (base64.b64encode(text.encode()).decode() for text in (MAKE, json.dumps(tables)))
    vm.guest.run(
        f"echo {script} | base64 -d > /tmp/make.py;"
        f'python3 -I -S /tmp/make.py "$(echo {told} | base64 -d)"; mkdir -p /dev/mapper;'
        "for d in /sys/class/block/dm-*; do [ -e $d ] && ln -sf /dev/${d##*/} /dev/mapper/$(cat $d/dm/name); done; true"
    )


def content_of(volume: Volume, images: Mapping[str, bytes]) -> bytes:
    """A volume put together from what the disks hold, by the host."""
    assert volume.segments is not None, volume
    found = bytearray(volume.size)
    done = 0
    for run in segments.runs(volume.segments, [(0, volume.size)]):
        found[run.volume : run.volume + run.length] = images[run.disk][run.start : run.start + run.length]
        done += run.length
    assert done == volume.size, volume
    return bytes(found)


def check_reads(channel: Channel, target: Mapping[str, str], wanted: list[Extent], content: bytes) -> None:
    position = 0
    whole = b"".join(content[each.start : each.end] for each in wanted)
    for piece in AgentReader(channel, target, len(content)).read(wanted):
        data = bytes(piece.data if piece.data is not None else bytes(piece.extent.length))
        assert data == content[piece.extent.start : piece.extent.end], (target, piece.extent)
        assert data == whole[position : position + len(data)]
        position += len(data)
        piece.release()
    assert position == len(whole)


def check_volume(vm: Vm, channel: Channel, volume: Volume, images: Mapping[str, bytes]) -> None:
    content = content_of(volume, images)
    assert vm.guest.hash(f"/dev/{volume.name}") == hashlib.blake2b(content).hexdigest(), volume
    check_reads(channel, {"device": volume.name}, [Extent(0, volume.size)], content)
    for disk, wanted in volume.extents().items():
        check_reads(channel, {"disk": disk, "through": volume.name}, wanted, images[disk])


@pytest.mark.vm
@pytest.mark.parametrize("seed", range(4))
def test_volumes_lie_where_the_guest_says(machine: Vm, channel: Channel, seed: int) -> None:
    images = {machine.device(disk.name).removeprefix("/dev/"): disk.path.read_bytes() for disk in machine.disks}
    before = devices.parse(channel.ask("map"))
    assert {(disk.name, disk.size) for disk in before.disks} == {(name, DISK_SIZE) for name in images}
    partitions = {volume.name: volume.size // SECTOR for volume in before.volumes}
    assert len(partitions) == 5
    usable = {name: size for name, size in partitions.items() if size > 100}
    assert len(usable) == 4
    tables = shuffled(random.Random(seed), usable)
    for table in tables:
        in_guest(machine, [table])
    try:
        found: GuestMap = devices.parse(channel.ask("map"))
        assert {volume.label for volume in found.volumes} == {"", "linear", "striped", "upper"}
        assert {volume.kind for volume in found.volumes} == {"partition", "lvm", "dm"}
        for volume in found.volumes:
            if volume.name not in partitions or volume.name in usable:
                check_volume(machine, channel, volume, images)
    finally:
        in_guest(machine, [(name, "", []) for name, _, _ in reversed(tables)])


@pytest.mark.vm
def test_a_chunk_that_is_cut_cannot_be_told_and_is_read_as_a_device(machine: Vm, channel: Channel) -> None:
    lower = [stripes(0, 8 * KIB // SECTOR, [("vda1", 0), ("vda2", 0)], 10)]
    in_guest(machine, [("striped", "", lower)])
    in_guest(machine, [("odd", "", [(0, 100, "linear", "/dev/mapper/striped 3")])])
    try:
        found = devices.parse(channel.ask("map"))
        odd, striped = (next(volume for volume in found.volumes if volume.label == name) for name in ("odd", "striped"))
        assert odd.segments is None
        content = content_of(striped, {"vda": machine.disk("gpt").path.read_bytes()})[3 * SECTOR : 103 * SECTOR]
        check_reads(channel, {"device": odd.name}, [Extent(0, odd.size)], content)
    finally:
        in_guest(machine, [("odd", "", []), ("striped", "", [])])


def replaced(vm: Vm, new: str, path: Path) -> None:
    """The disk on virtio-scsi by this one."""
    vm.qmp("device_del", id="dev-mbr")
    while any("dev-mbr" in entry["qdev"] for entry in vm.qmp("query-block")):
        time.sleep(0.01)
    vm.qmp("blockdev-add", driver="raw", node_name=f"node-{new}", file={"driver": "file", "filename": str(path)})
    vm.qmp("device_add", driver="scsi-hd", bus="bus-mbr.0", id="dev-mbr", drive=f"node-{new}", serial=new)
    while new not in vm.guest.call("devices"):
        time.sleep(0.05)


@pytest.mark.vm
def test_a_disk_that_gets_the_name_of_another_is_not_read_as_that(
    machine: Vm, channel: Channel, tmp_path: Path
) -> None:
    name = machine.device("mbr").removeprefix("/dev/")
    content = machine.disk("mbr").path.read_bytes()
    other = random.Random(3).randbytes(DISK_SIZE)
    (tmp_path / "other").write_bytes(other)
    some = [Extent(0, 2 * MIB)]

    def compare() -> None:
        channel.ask("hash", device=name, key="00", spans=[[0, 4096]])

    compare()
    check_reads(channel, {"disk": name}, some, content)
    replaced(machine, "other", tmp_path / "other")
    try:
        assert machine.guest.device("other") == f"/dev/{name}"
        with pytest.raises(Refused, match=f"{name} is not the device"):
            check_reads(channel, {"disk": name}, some, content)
        compare()
        check_reads(channel, {"disk": name}, some, other)
    finally:
        replaced(machine, "mbr", machine.disk("mbr").path)
