"""What drivers make of what is damaged or seldom: never the content of something else, nor zeroes for what they do not
understand."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.volumes.filesystem import Driver, Malformed, Node, NotSupported, Run
from headstart.volumes.filesystems.exfat import Exfat
from headstart.volumes.filesystems.ext import Ext
from headstart.volumes.filesystems.fat import Fat
from headstart.volumes.filesystems.ntfs import Ntfs
from headstart.volumes.filesystems.xfs import Xfs
from headstart.volumes.parserprocess import _Disk
from tests.kit import filetrees
from tests.volumes.metadata import Bytes

MIB = filetrees.MIB
PIECES = 12
#: Of an extent in an inode, or of an index of them.
FIRST = 0x28 + 12


def in_root(driver: Driver) -> dict[str, Node]:
    return {entry.name: entry.node for entry in driver.entries(driver.root)}


def content(driver: Driver, data: bytes | bytearray, node: Node) -> bytes:
    """As restore has it."""
    whole = bytearray(node.size)
    runs = driver.details(node.number).runs
    for run in runs or ():
        if run.place is not None:
            whole[run.start : run.start + run.length] = data[run.place : run.place + run.length]
    return bytes(whole[: node.size])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder/inside").write_bytes(b"x")
    (folder / "whole").write_bytes(b"W" * 65536)
    (folder / "link").symlink_to("far/" * 20)
    with (folder / "pieces").open("wb") as file:
        for number in range(PIECES):
            file.seek(number * 8192)
            file.write(bytes([65 + number]) * 4096)
        file.truncate(PIECES * 8192)
    return folder


def ext(tree: Path, kind: str, *options: str) -> bytearray:
    image = filetrees.make(kind, tree.with_name("image"), 8 * MIB, "-b", "1024", *options, "-d", tree)
    return bytearray(image.read_bytes())


def inode_at(data: bytearray, name: str) -> int:
    driver = Ext(Bytes(bytes(data)))
    return data.index(driver._inode(in_root(driver)[name].number))


def leaf_at(data: bytearray) -> int:
    """The block with the extents of what is in pieces."""
    at = inode_at(data, "pieces")
    assert data[at + 0x28 + 6] == 1, "it has no tree: the test shows nothing"
    return int(struct.unpack_from("<I", data, at + FIRST + 4)[0]) * 1024


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_content_and_targets_on_ext(tree: Path, kind: str) -> None:
    data = ext(tree, kind)
    driver = Ext(Bytes(bytes(data)))
    nodes = in_root(driver)
    for name in ("whole", "pieces"):
        expected = (tree / name).read_bytes()
        assert content(driver, data, nodes[name]) == expected
        assert driver.read(nodes[name].number, 4000, 9000) == expected[4000:13000]
    assert driver.details(nodes["link"].number).target == "far/" * 20
    assert driver.read(nodes["whole"].number, 65000, 9000) == b"W" * 536


def no_magic(data: bytearray) -> None:
    at = inode_at(data, "pieces")
    data[at + 0x28 : at + 0x2A] = bytes(2)


def no_magic_below(data: bytearray) -> None:
    at = leaf_at(data)
    data[at : at + 2] = bytes(2)


def tree_outside(data: bytearray) -> None:
    struct.pack_into("<I", data, inode_at(data, "pieces") + FIRST + 4, 0x7FFFFFF0)


def tree_far_outside(data: bytearray) -> None:
    struct.pack_into("<H", data, inode_at(data, "pieces") + FIRST + 8, 1)


def tree_within_itself(data: bytearray) -> None:
    own = leaf_at(data)
    header = struct.pack("<HHHHI", 0xF30A, 1, 4, 1, 0)
    data[own : own + 24] = header + struct.pack("<IIHH", 0, own // 1024, 0, 0)


def too_many_extents(data: bytearray) -> None:
    struct.pack_into("<H", data, leaf_at(data) + 2, 85)


def leaf_of_another(data: bytearray) -> None:
    """With what lies elsewhere in a file, as one that was not written since."""
    struct.pack_into("<I", data, inode_at(data, "pieces") + FIRST, 1)


def leaf_without_extents(data: bytearray) -> None:
    struct.pack_into("<H", data, leaf_at(data) + 2, 0)


@pytest.mark.parametrize(
    "damage",
    [
        no_magic,
        no_magic_below,
        tree_outside,
        tree_far_outside,
        tree_within_itself,
        too_many_extents,
        leaf_of_another,
        leaf_without_extents,
    ],
)
def test_damaged_extents_are_no_zeroes(tree: Path, damage: Callable[[bytearray], None]) -> None:
    data = ext(tree, "ext4", "-O", "^metadata_csum")
    damage(data)
    driver = Ext(Bytes(bytes(data)))
    number = in_root(driver)["pieces"].number
    with pytest.raises(Malformed, match="where it lies"):
        driver.details(number)
    with pytest.raises(Malformed, match="where it lies"):
        driver.read(number, 0, 10)


def test_a_damaged_list_of_blocks_is_no_zeroes(tree: Path) -> None:
    data = ext(tree, "ext2")
    struct.pack_into("<I", data, inode_at(data, "whole") + FIRST + 36, 0x7FFFFFF0)
    driver = Ext(Bytes(bytes(data)))
    with pytest.raises(Malformed, match="where it lies"):
        driver.details(in_root(driver)["whole"].number)


@pytest.mark.parametrize("damage", ["no magic", "no extents", "outside", "too long", "zeroes", "beyond its end"])
def test_a_damaged_directory_is_not_empty(tree: Path, damage: str) -> None:
    data = ext(tree, "ext4", "-O", "^metadata_csum")
    at = inode_at(data, "folder")
    block = struct.unpack_from("<I", data, at + FIRST + 8)[0] * 1024
    match damage:
        case "too long":
            struct.pack_into("<I", data, at + 4, 2048)
        case "zeroes":
            data[block : block + 1024] = bytes(1024)
        case "beyond its end":
            struct.pack_into("<H", data, block + 12 + 4, 65000)
        case "no magic":
            struct.pack_into("<H", data, at + 0x28, 0)
        case "no extents":
            struct.pack_into("<H", data, at + 0x28 + 2, 0)
        case _:
            struct.pack_into("<I", data, at + FIRST + 8, 0x7FFFFFF0)
    driver = Ext(Bytes(bytes(data)))
    with pytest.raises(Malformed):
        list(driver.entries(in_root(driver)["folder"].number))


def test_an_extent_beyond_four_thousand_million_blocks_is_not_another(tree: Path) -> None:
    data = ext(tree, "ext4", "-O", "^metadata_csum")
    at = inode_at(data, "whole") + FIRST
    (low,) = struct.unpack_from("<I", data, at + 8)
    struct.pack_into("<H", data, at + 6, 3)
    driver = Ext(Bytes(bytes(data)))
    details = driver.details(in_root(driver)["whole"].number)
    assert details.runs == (Run(0, 65536, (low | 3 << 32) * 1024),)


def test_clusters_of_ext4_are_refused_in_plain_words(tree: Path) -> None:
    data = ext(tree, "ext4", "-O", "bigalloc", "-C", "4096")
    with pytest.raises(NotSupported, match="bigalloc"):
        Ext(Bytes(bytes(data)))


def xfs(folder: Path, *options: str, names: int = 1) -> Path:
    files = [f"a-name-of-{number:04d} ---644 0 0 /dev/null" for number in range(names)]
    (folder / "tree").write_text("\n".join(["/none", "0 0", "d--755 0 0", *files, "$", ""]))
    return filetrees.make("xfs", folder / "image", 320 * MIB, *options, "-p", folder / "tree")


def opened(image: Path) -> Xfs:
    def read(_: str, start: int, length: int) -> bytes:
        with image.open("rb") as file:
            return os.pread(file.fileno(), length, start)

    return Xfs(_Disk("disk", 320 * MIB, read))


def edit_xfs(image: Path, *commands: str) -> None:
    given = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(["/usr/sbin/xfs_db", "-x", *given, image], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options", ["-b size=1024", "-n size=8192", "-n size=16384,ftype=0 -m crc=0", "-n size=4096"], ids=str
)
def test_all_names_of_a_directory_of_xfs(tmp_path: Path, options: str) -> None:
    driver = opened(xfs(tmp_path, *options.split(), names=400))
    listed = list(driver.entries(driver.root))
    assert [entry.name for entry in listed] == [f"a-name-of-{number:04d}" for number in range(400)]
    assert {entry.node.kind for entry in listed} == {"file"}


def index(image: Path, what: bytes) -> int:
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return data.find(what)


def put(image: Path, at: int, what: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(what)


@pytest.mark.parametrize(("names", "kind"), [(60, b"XDB3"), (300, b"XDD3")])
def test_a_damaged_directory_of_xfs_is_not_shorter(tmp_path: Path, names: int, kind: bytes) -> None:
    image = xfs(tmp_path, names=names)
    at = index(image, f"a-name-of-{names - 10:04d}".encode()) // 4096 * 4096
    with image.open("rb") as file:
        whole = os.pread(file.fileno(), 4096, at)
    assert whole[:4] == kind and (index(image, b"a-name-of-0000") // 4096 * 4096 == at) == (names == 60)
    if kind == b"XDD3":  # what is free at its end may be as short as this
        free = whole.index(b"\xff\xff", 64)
        shorter = (
            struct.pack(">HH", 0xFFFF, 4096 - 8 - free)
            + whole[free + 4 : -8]
            + struct.pack(">HHHH", 0xFFFF, 8, 0, 4088)
        )
        put(image, at, whole[:free] + shorter)
        driver = opened(image)
        assert len(list(driver.entries(driver.root))) == names
    for damaged in (
        bytes(4096),
        b"XXXX" + whole[4:],
        whole[:64] + b"\xff\xff\0\0" + whole[68:],
        whole[:40] + bytes(8) + whole[48:],
        *([whole[:-8] + b"\0\0\2\0" + whole[-4:]] if names == 60 else []),
    ):
        put(image, at, damaged)
        driver = opened(image)
        with pytest.raises(Malformed):
            list(driver.entries(driver.root))


def test_only_attributes_are_attributes_of_xfs(tmp_path: Path) -> None:
    """A parent pointer, and what was not yet whole, stand among them. The file is of before 1970; and what does not say
    where it lies is no file."""
    image = xfs(tmp_path, "-m", "bigtime=0")
    names = ("kept", "parents", "torn")
    edit_xfs(image, "path /a-name-of-0000", *(f"attr_set -u -v 3 {name}" for name in names))
    for name, flag in (("parents", b"\x08"), ("torn", b"\x80")):
        put(image, index(image, name.encode()) - 1, flag)
    (entry,) = opened(image).entries(opened(image).root)
    put(image, entry.node.number * 512 + 40, struct.pack(">iI", -5, 0))
    driver = opened(image)
    (entry,) = driver.entries(driver.root)
    assert list(driver.details(entry.node.number).xattrs) == ["user.kept"]
    assert entry.node.mtime // 10**9 == -5
    inode = entry.node.number * 512
    for format_, extents in ((1, 0), (3, 1)):
        put(image, inode + 5, bytes([format_]))
        put(image, inode + 24, extents.to_bytes(8, "big"))  # where there may be many
        put(image, inode + 76, extents.to_bytes(4, "big"))
        with pytest.raises(Malformed):
            opened(image).details(entry.node.number)


REPARSE = "system.ntfs_reparse_data"


def reparse(tag: int, length: int = 16) -> bytes:
    return struct.pack("<IHH", tag, length, 0) + struct.pack("<I", 1) * (length // 4)


def test_what_windows_has_elsewhere_is_no_zeroes(tmp_path: Path) -> None:
    image = filetrees.make("ntfs", tmp_path / "image", 16 * MIB)
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt") as mnt:
        tags = {"online": 0x9000701A, "offline": 0x8000001E, "here": 0x9000101A, "app": 0x8000001B, "once": 0x80000007}
        (mnt / "folder").mkdir()
        os.setxattr(mnt / "folder", REPARSE, reparse(0x9000001C))
        for name, tag in tags.items():
            with (mnt / name).open("wb") as file:
                file.write(b"" if name in ("online", "once") else b"content" * 3000)
                file.truncate(21000)
            os.setxattr(mnt / name, REPARSE, reparse(tag))
        os.setxattr(mnt / "offline", "system.ntfs_attrib_be", (0x1020).to_bytes(4, "big"))
    data = image.read_bytes()
    driver = Ntfs(Bytes(data))
    nodes = in_root(driver)
    for name in ("online", "offline"):
        with pytest.raises(NotSupported, match="OneDrive"):
            driver.details(nodes[name].number)
    with pytest.raises(NotSupported, match="0x80000007"):
        driver.details(nodes["once"].number)
    assert "0x9000001C" in driver.details(nodes["folder"].number).notes[0]
    assert content(driver, data, nodes["here"]) == b"content" * 3000
    assert driver.details(nodes["here"].number).notes == ()
    assert "0x8000001B" in driver.details(nodes["app"].number).notes[0]


def test_attributes_in_other_records_of_ntfs(tmp_path: Path) -> None:
    image = filetrees.make("ntfs", tmp_path / "image", 16 * MIB)
    streams = [f"{number}" * 120 for number in range(4)]
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt", "-o", "streams_interface=xattr") as mnt:
        for name in ("noted", "pressed", "secret"):
            (mnt / name).touch()
            for stream in streams:
                os.setxattr(mnt / name, f"user.{stream}", b"v" * 100)
        (mnt / "many").touch()
        for number in range(25):
            os.setxattr(mnt / "many", f"user.{number:03d}", b"v")
        os.setxattr(mnt / "pressed", REPARSE, reparse(0x80000017, 800))
        (mnt / "secret").write_bytes(b"to be a secret")
        with (mnt / "pieces").open("wb") as pieces:
            for number in range(400):
                pieces.seek(number * 8192)
                pieces.write(bytes([number % 255 + 1]) * 4096)
        (mnt / "links").mkdir()
        links = [f"{number}".zfill(100) for number in range(12)]
        for link in links:
            os.link(mnt / "noted", mnt / "links" / link)
    data = bytearray(image.read_bytes())
    record = data.index(b"to be a secret") // 1024 * 1024
    (standard,) = struct.unpack_from("<H", data, record + 0x14)
    data[record + standard + 0x18 + 0x20 + 1] |= 0x40
    driver = Ntfs(Bytes(bytes(data)))
    nodes = in_root(driver)
    assert driver.details(nodes["noted"].number).notes[0].endswith(": " + ", ".join(streams))
    assert driver.details(nodes["many"].number).notes[0].endswith("018, 019 and 5 more")
    with pytest.raises(NotSupported, match="CompactOS"):
        driver.details(nodes["pressed"].number)
    with pytest.raises(NotSupported, match="EFS"):
        driver.details(nodes["secret"].number)
    pieces_told_or_refused(data, nodes["pieces"])
    number, root = nodes["noted"].number, driver.root
    assert not driver._is_called(root, "another", number, driver._meta(number))
    for at in records_of(data, nodes["noted"]):
        driver = Ntfs(Bytes(bytes(data[:at] + bytes(1024) + data[at + 1024 :])))
        assert sorted(entry.name for entry in driver.entries(nodes["links"].number)) == links


def records_of(data: bytearray, node: Node) -> list[int]:
    """Those beside its first."""
    found = [
        at
        for at in range(0, len(data), 1024)
        if data[at : at + 4] == b"FILE" and struct.unpack_from("<Q", data, at + 0x20)[0] & (1 << 48) - 1 == node.number
    ]
    assert len(found) > 1, "it has no other records: the test shows nothing"
    return found


def test_what_files_of_ntfs_were_called_once_is_no_name(tmp_path: Path) -> None:
    """It stands in blocks of the directory that are no longer used; also of what was deleted and made again."""
    image = filetrees.make("ntfs", tmp_path / "image", 16 * MIB)
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt") as mnt:
        many, other = mnt / "many", mnt / "other"
        many.mkdir()
        other.mkdir()
        names = [f"file-{number}-{'x' * 60}" for number in range(199, -1, -1)]
        for name in names:
            (many / name).touch()
        os.link(many / names[0], other / "linked")
        for name in (deleted := [name for name in names[50:150] if name >= "file-9"]):
            (many / name).unlink()
        for name in names[50:150]:
            if name not in deleted:
                (many / name).rename(other / name)
        there = [sorted(each.name for each in folder.iterdir()) for folder in (many, other)]

    def listed(name: str) -> list[str]:
        return sorted(entry.name for entry in driver.entries(in_root(driver)[name].number))

    driver = Ntfs(Bytes(image.read_bytes()))
    raw = [each.info.name.name.decode() for each in driver.fs.open_dir(inode=in_root(driver)["many"].number)]
    assert len({*raw} - {".", ".."}) > len(there[0]), "nothing stands there: the test shows nothing"
    for name, expected in zip(("many", "other"), there, strict=True):
        assert listed(name) == expected
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt") as mnt:
        for name in deleted:  # each has the record that it had
            (mnt / "many" / name).touch()
    driver = Ntfs(Bytes(image.read_bytes()))
    raw_again = driver.fs.open_dir(inode=in_root(driver)["many"].number)
    old = {each.info.name.name.decode() for each in raw_again if each.info.meta is None}
    assert old & {*deleted}, "the library knows all of them: the test shows nothing"
    assert listed("many") == sorted(there[0] + deleted)


def pieces_told_or_refused(data: bytearray, node: Node) -> None:
    """Where they lie stands in several records: without one of them, nothing is zeroes instead."""

    def whole(data: bytes | bytearray) -> bytes:
        driver = Ntfs(Bytes(bytes(data)))
        driver.details(node.number)
        return driver.read(node.number, 0, node.size)

    read = whole(data)
    assert all(read[at : at + 4096] == bytes([at // 8192 % 255 + 1]) * 4096 for at in range(0, node.size, 8192))
    for at in records_of(data, node):
        for record in (bytes(1024), data[at : at + 510] + b"??" + data[at + 512 : at + 1024]):
            damaged = bytearray(data)
            damaged[at : at + 1024] = record
            with contextlib.suppress(Malformed, OSError):
                assert whole(damaged) == read


class FatImage:
    """An empty FAT16 with clusters of one sector, all of which held something once."""

    SECRET = b"\xee" * 512

    def __init__(self, folder: Path) -> None:
        options = ("-F", "16", "-s", "1")
        data = self.data = bytearray(filetrees.make("vfat", folder / "image", 8 * MIB, *options).read_bytes())
        reserved, tables, roots, per_table = struct.unpack_from("<HBH3xH", data, 14)
        self._tables = [(reserved + number * per_table) * 512 for number in range(tables)]
        self._root: int = (reserved + tables * per_table) * 512
        self._heap: int = self._root + roots * 32
        self.data[self._heap :] = self.SECRET * ((len(data) - self._heap) // 512)

    def place(self, cluster: int) -> int:
        return self._heap + (cluster - 2) * 512

    def take(self, cluster: int, *following: int) -> None:
        for before, after in zip((cluster, *following), following, strict=False):
            for table in self._tables:
                struct.pack_into("<H", self.data, table + 2 * before, after)

    def put(self, *entries: bytes, cluster: int = 0) -> None:
        at = self.place(cluster) if cluster else self._root
        self.data[at : at + 32 * len(entries)] = b"".join(entries)

    def opened(self) -> Fat:
        return Fat(Bytes(bytes(self.data)))


def fat_entry(name: bytes, cluster: int, size: int, *, kind: int = 0x20, case: int = 0, date: int = 0x5C7B) -> bytes:
    return struct.pack("<11sBB7xHHHHI", name, kind, case, 0, 0x6000, date, cluster, size)


def test_clusters_of_fat_that_are_missing_are_no_zeroes(tmp_path: Path) -> None:
    image = FatImage(tmp_path)
    chains = {
        b"SHORT": (20, 0xFFFF),
        b"FREE": (30, 31, 0),
        b"BAD": (40, 0xFFF7),
        b"LOOP": (50, 51, 50),
        b"OUTSIDE": (60, 0xFF00),
        b"NONE": (0,),
    }
    image.take(10, 12, 13, 0xFFFF)
    for chain in chains.values():
        image.take(*chain)
    damaged = [fat_entry(name.ljust(11), chain[0], 1500) for name, chain in chains.items()]
    image.put(fat_entry(b"GOOD    BIN", 10, 1500), fat_entry(b"EMPTY      ", 0, 0), *damaged)
    driver = image.opened()
    nodes = in_root(driver)
    assert list(nodes) == ["GOOD.BIN", "EMPTY", *(name.decode() for name in chains)]
    good = nodes["GOOD.BIN"]
    assert driver.details(good.number).runs == (Run(0, 512, image.place(10)), Run(512, 1024, image.place(12)))
    assert driver.read(good.number, 500, 5000) == (image.SECRET * 3)[500:1500]
    for name in chains:
        with pytest.raises(Malformed):
            driver.details(nodes[name.decode()].number)
        with pytest.raises(Malformed):
            driver.read(nodes[name.decode()].number, 0, 10)


def test_all_names_of_fat(tmp_path: Path) -> None:
    """Also those that no long name stands for: letters of DOS, and what a driver finds odd."""
    image = FatImage(tmp_path)
    part = b"\x41" + "ab".encode("utf-16-le") + bytes(6) + b"\x0f\0"
    image.put(
        fat_entry(b"\x8eA      TXT", 2, 3),
        fat_entry(b"\x99A      TXT", 2, 3),
        fat_entry(b"\x05AB     TXT", 2, 3),
        fat_entry(b"lower   TXT".upper(), 2, 3, case=0x18),
        fat_entry(b"BADDATE TXT", 2, 3, date=40 << 9),
        fat_entry(b"LABEL      ", 0, 0, kind=0x08),
        (part + b"\1").ljust(32, b"\xff"),
        fat_entry(b"TORN    TXT", 2, 3),
        b"\xe5".ljust(32, b"x"),
        *(fat_entry(name, number, 0, kind=0x10) for number, name in enumerate((b"FOLDER     ", b"CUT        "), 70)),
        *(fat_entry(name, number, 0, kind=0x10) for number, name in enumerate((b"ENDED      ", b"NOTHING    "), 72)),
        fat_entry(b"CAMERA     ", 74, 0, kind=0x10),
    )
    dots = (fat_entry(b".          ", 70, 0, kind=0x10), fat_entry(b"..         ", 0, 0, kind=0x10))
    files = [fat_entry(b"F%-10d" % number, 2, 3) for number in range(15)]
    image.put(*dots, *files[:14], cluster=70)
    image.put(files[14], bytes(32 * 15), cluster=80)
    image.put(*dots, *files[:14], cluster=71)
    image.put(*dots, files[0], bytes(32), *files[1:13], cluster=72)
    image.put(*[bytes(32)] * 16, cluster=73)
    image.put(*dots, files[0], bytes(32), *[b"\xaa" * 32, b"Text of before. " * 2] * 6, cluster=74)
    for chain in ((70, 80, 0xFFFF), (71, 0), (72, 0xFFFF), (73, 0xFFFF), (74, 0xFFFF), (2, 0xFFFF)):
        image.take(*chain)
    driver = image.opened()
    nodes = in_root(driver)
    files_there = ["ÄA.TXT", "ÖA.TXT", "\N{GREEK SMALL LETTER SIGMA}AB.TXT", "lower.txt", "BADDATE.TXT", "TORN.TXT"]
    assert list(nodes) == [*files_there, "FOLDER", "CUT", "ENDED", "NOTHING", "CAMERA"]
    assert [entry.name for entry in driver.entries(nodes["FOLDER"].number)] == [f"F{number}" for number in range(15)]
    for name, expected in (("CAMERA", ["F0"]), ("ENDED", ["F0", ""])):
        assert [entry.name for entry in driver.entries(nodes[name].number)] == expected
    for name in ("CUT", "NOTHING", "lower.txt"):
        with pytest.raises(Malformed):
            list(driver.entries(nodes[name].number))


class ExfatImage:
    """An empty exFAT whose clusters all held something once."""

    SECRET = b"\xee"

    def __init__(self, folder: Path) -> None:
        data = self.data = bytearray(filetrees.make("exfat", folder / "image", 4 * MIB).read_bytes())
        sector, self._cluster = 1 << data[108], 1 << data[108] + data[109]
        table, _, heap, _, self.root = struct.unpack_from("<IIIII", data, 80)
        self._table: int = table * sector
        self._heap: int = heap * sector
        at = self.place(self.root)
        self.entries = next(number for number in range(100) if not data[at + number * 32])
        first = next(at + number * 32 for number in range(100) if data[at + number * 32] == 0x81)
        self._bitmap = self.place(struct.unpack_from("<I", data, first + 20)[0])
        self.each = self._cluster // 32

    def place(self, cluster: int) -> int:
        return self._heap + (cluster - 2) * self._cluster

    def take(self, cluster: int, following: int = 0xFFFFFFFF) -> None:
        self.data[self._bitmap + (cluster - 2) // 8] |= 1 << (cluster - 2) % 8
        struct.pack_into("<I", self.data, self._table + 4 * cluster, following)

    def file(
        self, cluster: int, length: int, valid: int, name: str = "file", kind: int = 0x20, flags: int = 3
    ) -> list[bytes]:
        """The three entries of one that lies in a row from there."""
        for each in range(cluster, cluster - -length // self._cluster):
            self.take(each)
            self.data[self.place(each) : self.place(each + 1)] = self.SECRET * self._cluster
        stream = struct.pack("<BBBBHHQIIQ", 0xC0, flags, 0, len(name), 0, 0, valid, 0, cluster, length)
        date = (46 << 9 | 11 << 5 | 27) << 16
        file = struct.pack("<BBHHHIII12x", 0x85, 2, 0, kind, 0, date, date, date)
        return [file, stream, (b"\xc1\0" + name.encode("utf-16-le")).ljust(32, b"\0")]

    def put(self, cluster: int, first: int, entries: list[bytes]) -> None:
        at = self.place(cluster) + first * 32
        self.data[at : at + 32 * len(entries)] = b"".join(entries)

    def opened(self) -> Exfat:
        return Exfat(Bytes(bytes(self.data)))


@pytest.mark.parametrize("valid", [0, 1000, 5000, 8192, 9000])
def test_what_was_never_written_is_zero_on_exfat(tmp_path: Path, valid: int) -> None:
    image = ExfatImage(tmp_path)
    image.put(image.root, image.entries, image.file(image.root + 5, 9000, valid))
    driver = image.opened()
    node = in_root(driver)["file"]
    expected = image.SECRET * valid + bytes(9000 - valid)
    assert content(driver, image.data, node) == expected
    assert driver.read(node.number, 900, 8000) == expected[900:8900]
    assert driver.read(node.number, 8900, 8000) == expected[8900:]


def test_entries_of_exfat_in_two_pieces_of_a_directory(tmp_path: Path) -> None:
    image = ExfatImage(tmp_path)
    far = image.root + 20
    file, *rest = image.file(image.root + 5, 9000, 1000)
    fill = [b"\x05".ljust(32, b"\0")] * (image.each - 1 - image.entries)
    image.put(image.root, image.entries, [*fill, file])
    image.put(far, 0, rest)
    image.take(image.root, far)
    image.take(far)
    driver = image.opened()
    assert content(driver, image.data, in_root(driver)["file"]) == image.SECRET * 1000 + bytes(8000)


def test_what_is_damaged_on_exfat_is_told(tmp_path: Path) -> None:
    """Clusters that are missing, and names; a directory that lies in a row has them all."""
    image = ExfatImage(tmp_path)
    root = image.root
    chains = {"good": (5, root + 7), "short": (10, 0xFFFFFFFF), "free": (12, 0), "loop": (14, root + 14)}
    chains["outside"] = (16, 9999)
    entries = [image.file(root + first, 8192, 8192, name, flags=1) for name, (first, _) in chains.items()]
    for first, following in chains.values():
        image.take(root + first, following)
    image.take(root + 7)
    file, stream, name = image.file(root + 18, 8192, 8192, "none", flags=1)
    entries += [
        [file, stream[:20] + bytes(4) + stream[24:], name],
        image.file(root + 20, 2 * 4096, 8192, "row", kind=0x10),
    ]
    torn = image.file(root + 30, 1, 1, "torn")[:2]
    image.put(root, image.entries, [each for entry in entries for each in entry] + torn)
    files = [image.file(root + 40, 4, 4, f"f{number}") for number in range(80)]
    image.put(root + 20, 0, [b"\x05".ljust(32, b"\0"), *(each for entry in files for each in entry)])
    image.put(root + 20, 241, [bytes(32)] * 15)
    image.take(root + 20, 0)
    driver = image.opened()
    nodes = in_root(driver)
    assert list(nodes) == [*chains, "none", "row", ""] and nodes[""].kind == "unknown"
    good = driver.details(nodes["good"].number)
    assert good.runs == (Run(0, 4096, image.place(root + 5)), Run(4096, 4096, image.place(root + 7)))
    for damaged in ("short", "free", "loop", "outside", "none"):
        with pytest.raises(Malformed):
            driver.details(nodes[damaged].number)
        with pytest.raises(Malformed):
            driver.read(nodes[damaged].number, 0, 10)
    inside = list(driver.entries(nodes["row"].number))
    assert [entry.name for entry in inside] == [f"f{number}" for number in range(80)]
    assert {driver.details(entry.node.number).runs for entry in inside} == {(Run(0, 4, image.place(root + 40)),)}
    for behind, expected in (([b"\xc5" * 32], ["f0"]), (files[1], ["f0", ""])):
        image.put(root + 20, 0, [*files[0], bytes(32), *behind])
        image.put(root + 20, 4 + len(behind), [bytes(32)] * (256 - 4 - len(behind)))
        driver = image.opened()
        assert [entry.name for entry in driver.entries(in_root(driver)["row"].number)] == expected
