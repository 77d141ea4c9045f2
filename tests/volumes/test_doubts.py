"""Tables that are torn, damaged or made to deceive: volumes may still be found by them, and nothing may be left out."""

from __future__ import annotations

import json
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.agentd.segments import Segment, Stripe
from headstart.volumes import lvm, selection, signatures, survey, volume
from headstart.volumes.lvm import PhysicalVolume
from headstart.volumes.selection import Seen
from headstart.volumes.volume import Volume
from tests.kit import filetrees
from tests.volumes import metadata
from tests.volumes.metadata import Bytes

MIB = 1 << 20
SIZE = 64 * MIB
SECTOR = 512
GPT = "label: gpt\nstart=2048, size=32768\nstart=34816, size=32768, name=second\n"
MBR = "label: dos\nstart=2048, size=32768\nstart=34816, size=40960, type=5\nstart=36864, size=32768\n"


def swap(label: str = "") -> bytes:
    header = struct.pack("<III", 1, 4000, 0) + bytes(range(16)) + label.encode().ljust(16, b"\0")
    return bytes(1024) + header + bytes(4086 - 1024 - len(header)) + b"SWAPSPACE2"


def disk(folder: Path, table: str) -> bytearray:
    """Partitioned, with swap in what begins at sector 34816 or 36864."""
    image = folder / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["/sbin/sfdisk", "-q", image], input=table, text=True, capture_output=True, check=True)
    content = bytearray(image.read_bytes())
    put(content, 36864 if "dos" in table else 34816, swap("paging"))
    return content


def put(content: bytearray, sector: int, data: bytes) -> None:
    content[sector * SECTOR : sector * SECTOR + len(data)] = data


def look(content: bytes | bytearray) -> list[Volume]:
    return survey.volumes({"vda": Bytes(bytes(content))})


def left_out(volumes: list[Volume]) -> list[str]:
    found = selection.select([["!swap"]], Seen(tuple(volumes)), {"vda": SIZE}, 65536)
    return [each.volume.name for each in found.left_out]


@pytest.mark.parametrize(("table", "name"), [(GPT, "vda/2"), (MBR, "vda/5")])
def test_a_sound_table(tmp_path: Path, table: str, name: str) -> None:
    found = look(disk(tmp_path, table))
    assert not any(each.doubt for each in found)
    assert left_out(found) == [name]
    [its] = [each for each in found if each.name == name]
    assert (its.content, its.label, its.uuid) == ("swap", "paging", "00010203-0405-0607-0809-0a0b0c0d0e0f")


#: Logical partitions, the first of which is deleted and made again, and then another one behind them.
CHAIN = (
    "label: dos\nlabel-id: 0x1234abcd\nstart=2048, size=8192\nstart=16384, size=100000, type=5\n"
    "start=18432, size=8192\nstart=36864, size=8192\nstart=61440, size=8192\n"
)
AGAIN = ("start=18432, size=8192", "start=81920, size=8192")


def sfdisk(*options: str, told: str = "") -> str:
    done = subprocess.run(["/sbin/sfdisk", "-q", *options], input=told, text=True, capture_output=True, check=True)
    return done.stdout


def test_logical_partitions_have_the_numbers_of_their_chain(tmp_path: Path) -> None:
    disk(tmp_path, CHAIN)
    image = tmp_path / "disk"
    sfdisk("--delete", str(image), "5")
    for each in AGAIN:
        sfdisk("--append", str(image), told=each)
    table = json.loads(sfdisk("--json", str(image)))["partitiontable"]
    wanted = {
        f"vda/{number}": (each["start"] * SECTOR, f"1234abcd-{number:02x}")
        for each in table["partitions"]
        if each["type"] != "5"
        for number in [int(each["node"].removeprefix(str(image)))]
    }
    found = look(image.read_bytes())
    told = {each.name: (each.segments[0].stripes[0].start, each.partition_uuid) for each in found if each.segments}
    assert told == wanted and not any(each.doubt for each in found)
    logical = [start for start, _ in list(wanted.values())[1:]]
    assert len(logical) == 4 and logical != sorted(logical), "sfdisk goes by the chain"


def entry(start: int, length: int, kind: int = 0x83) -> bytes:
    return struct.pack("<4xB3xII", kind, start, length)


def test_a_logical_partition_that_is_not_there_has_a_number_if_sfdisk_says_so(tmp_path: Path) -> None:
    content = disk(tmp_path, CHAIN)
    first, second = 16384 * SECTOR + 446, 34816 * SECTOR + 446
    assert content[second : second + 16] != bytes(16), "the table of the second one is here"
    emptied, behind = bytearray(content), bytearray(content)
    emptied[first : first + 16] = bytes(16)
    assert {each.name for each in look(emptied)} == {"vda/1", "vda/5", "vda/6"}
    behind[second : second + 16] = entry(SIZE // SECTOR, 8192)
    assert {each.name for each in look(behind)} == {"vda/1", "vda/5", "vda/7"}


def test_several_extended_partitions_are_doubtful(tmp_path: Path) -> None:
    """Linux numbers the logical ones of both, sfdisk does not see those of the second."""
    content = disk(tmp_path, CHAIN)
    assert left_out(look(content)) == ["vda/6"]
    content[446 + 32 : 446 + 48] = entry(120000, 8000, 5)
    content[120000 * SECTOR + 446 : 120000 * SECTOR + 462] = entry(16, 4000)
    content[120000 * SECTOR + 510 : 120001 * SECTOR] = b"\x55\xaa"
    found = look(content)
    assert len(found) == 5 and left_out(found) == [] and all("chain" in each.doubt for each in found)


def half_written(content: bytearray) -> None:
    """The first copy has another table already, under its checksum, and the second has not."""
    entries = content[2 * SECTOR : 2 * SECTOR + 128 * 128]
    entries[128 + 40 : 128 + 48] = struct.pack("<Q", 34816 + 65535 - 2048)
    content[2 * SECTOR : 2 * SECTOR + 128 * 128] = entries
    content[SECTOR + 88 : SECTOR + 92] = struct.pack("<I", zlib.crc32(entries))
    content[SECTOR + 16 : SECTOR + 20] = bytes(4)
    content[SECTOR + 16 : SECTOR + 20] = struct.pack("<I", zlib.crc32(content[SECTOR : SECTOR + 92]))


def torn_entries(content: bytearray) -> None:
    content[2 * SECTOR + 128 + 40] ^= 1


def torn_header(content: bytearray) -> None:
    content[SECTOR + 60] ^= 1


def no_second_copy(content: bytearray) -> None:
    content[SIZE - SECTOR :] = bytes(SECTOR)


def swap_before(content: bytearray) -> None:
    """The disk was swap as a whole before it was partitioned."""
    content[4086:4096] = b"SWAPSPACE2"


def another_mark(content: bytearray) -> None:
    """A container that somebody made on what was swap, and whose program wiped nothing."""
    put(content, 34816, b"LUKS\xba\xbe")


@pytest.mark.parametrize(
    "harm",
    [half_written, torn_entries, torn_header, no_second_copy, swap_before, another_mark],
    ids=lambda each: each.__name__,
)
def test_a_table_in_doubt_leaves_nothing_out(tmp_path: Path, harm: Callable[[bytearray], None]) -> None:
    content = disk(tmp_path, GPT)
    harm(content)
    found = look(content)
    assert left_out(found) == []
    assert not found or any(each.doubt for each in found)


def test_partitions_over_each_other(tmp_path: Path) -> None:
    content = disk(tmp_path, MBR)
    content[446 + 8 : 446 + 16] = struct.pack("<II", 2048, 40000)
    content[446 + 16 + 4] = 0x83  # a primary one, over what the logical one has
    put(content, 34816, swap())
    found = look(content)
    assert left_out(found) == [] and any("overlap" in each.doubt for each in found)


def test_a_partition_behind_the_end(tmp_path: Path) -> None:
    """The disk was shrunk, or another one's table was copied."""
    found = look(disk(tmp_path, GPT)[: 40 * MIB])
    assert left_out(found) == []


def test_a_hibernated_system_is_no_swap(tmp_path: Path) -> None:
    content = disk(tmp_path, GPT)
    put(content, 34816, swap().replace(b"SWAPSPACE2", b"S1SUSPEND\0"))
    assert left_out(look(content)) == []


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_swap_of_machines_with_large_pages(page: int) -> None:
    content = bytearray(swap("big").replace(b"SWAPSPACE2", bytes(10)).ljust(MIB, b"\0"))
    content[page - 10 : page] = b"SWAPSPACE2"
    assert signatures.recognise(Bytes(bytes(content))).label == "big"


def test_btrfs_has_a_label() -> None:
    content = bytearray(MIB)
    content[0x10000 + 0x20 : 0x10000 + 0x30] = bytes(range(16))
    content[0x10040:0x10048] = b"_BHRfS_M"
    content[0x1012B : 0x1012B + 7] = b"scratch"
    found = signatures.recognise(Bytes(bytes(content)))
    assert (found.kind, found.label, found.uuid) == ("btrfs", "scratch", "00010203-0405-0607-0809-0a0b0c0d0e0f")


def test_a_real_file_system_has_one_mark(tmp_path: Path) -> None:
    for kind in ("ext4", "vfat", "ntfs"):
        image = filetrees.make(kind, tmp_path / kind, 64 * MIB)
        assert signatures.kinds(Bytes(image.read_bytes())) == [kind]


# LVM


def groups(*texts: str, doubts: tuple[str, ...] = ()) -> dict[str, Volume]:
    bases = [volume.partition(f"disk{number}", "1", MIB, 500 * MIB) for number in range(2)]
    found = [
        PhysicalVolume(metadata.IDS[number].replace("-", ""), base, texts[number], doubts[number] if doubts else "")
        for number, base in enumerate(bases)
    ]
    return {each.name: each for each in lvm.volumes(found)}


def test_copies_of_a_group_that_differ() -> None:
    """LVM writes to one physical volume after the other."""
    assert not groups(metadata.TEXT, metadata.TEXT)["vg0/root"].doubt
    assert not groups(metadata.TEXT, "")["vg0/root"].doubt, "a physical volume may have no copy"
    torn = groups(metadata.TEXT, metadata.TEXT.replace("seqno = 7", "seqno = 8"))
    assert "differ" in torn["vg0/root"].doubt and "differ" in torn["vg0/fast"].doubt


def test_a_damaged_copy_or_table_below() -> None:
    assert groups(metadata.TEXT, "", doubts=("", "damaged"))["vg0/root"].doubt == "damaged"


def test_volumes_of_a_group_that_share_extents() -> None:
    text = metadata.TEXT.replace('"pv0", 20', '"pv0", 11')
    assert text != metadata.TEXT
    found = groups(text, text)
    assert "shares extents" in found["vg0/root"].doubt and "shares extents" in found["vg0/fast"].doubt


def test_a_copy_of_a_physical_volume() -> None:
    """A restored disk that was attached to its VM: which one the guest uses, nothing tells."""
    bases = [volume.partition(f"disk{number}", "1", MIB, 500 * MIB) for number in range(3)]
    first, second = (each.replace("-", "") for each in metadata.IDS)
    told = [PhysicalVolume(its, base, metadata.TEXT) for its, base in zip((first, second, first), bases, strict=True)]
    found = {each.name: each for each in lvm.volumes(told)}
    assert "have the same id" in found["vg0/root"].doubt and "have the same id" in found["vg0/fast"].doubt
    assert [disk for disk, _ in volume.covers(found["vg0/root"])] == ["disk0", "disk1"], "the first one"


def sealed(content: bytes) -> bytes:
    """A physical volume of ``test_lvm`` with the checksums that LVM writes."""
    found = bytearray(content)
    size = struct.unpack_from("<Q", found, 4096 + 48)[0]
    text = found[4096 + 512 : 4096 + 512 + size]
    found[4096 + 56 : 4096 + 60] = struct.pack("<I", slow_crc(text))
    found[4096:4100] = struct.pack("<I", slow_crc(found[4100:4608]))
    return bytes(found)


def slow_crc(content: bytes | bytearray) -> int:
    """As lib/misc/crc.c has it, bit by bit."""
    crc = 0xF597A6CF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc


@pytest.mark.parametrize(("place", "doubted"), [(None, False), (4096 + 512 + 100, True), (4096 + 200, True)])
def test_checksums_of_lvm(place: int | None, doubted: bool) -> None:
    content = bytearray(sealed(metadata.on_disk(metadata.TEXT.encode() + b"\0", 8192, 512)))
    if place is not None:
        content[place] ^= 1
    found = lvm.physical_volume(volume.whole("disk0", 500 * MIB), Bytes(bytes(content)))
    assert found.text and bool(found.doubt) is doubted


def test_a_copy_that_is_not_used() -> None:
    content = bytearray(metadata.on_disk(metadata.TEXT.encode() + b"\0", 8192, 512))
    content[4096 + 60] = 1
    found = lvm.physical_volume(volume.whole("disk0", 500 * MIB), Bytes(bytes(content)))
    assert not found.text and not found.doubt


def test_covers_has_a_piece_for_each_column() -> None:
    striped = Volume("vg/x", 10, segments=(Segment(0, 10, (Stripe("a", 100), Stripe("b", 200)), 4),))
    assert [(disk, each.start, each.length) for disk, each in volume.covers(striped)] == [("a", 100, 6), ("b", 200, 4)]
