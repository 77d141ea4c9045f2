"""Files of every kind, in file systems made by the kernel or by their own tools, read from a snapshot and compared."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart import errors
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore.files import extraction, guestpath
from headstart.restore.files.archive import Archive
from headstart.restore.files.contents import Contents
from headstart.restore.files.extraction import Copied
from headstart.restore.serving.view import DiskView
from headstart.volumes import parserprocess
from headstart.volumes.filesystem import NotSupported
from headstart.volumes.filesystems.ext import Ext
from headstart.volumes.filesystems.xfs import Xfs
from tests.kit import filetrees, stores
from tests.restore import stored

MIB = filetrees.MIB
ALL = guestpath.parse("c0ffee:/")


def snapshot_of(*images: Path) -> tuple[Repository, Manifest]:
    repo = stores.new_repository()
    return repo, stored.store_snapshot(repo, {f"disk{number}": each.read_bytes() for number, each in enumerate(images)})


def copied_out(image: Path, folder: Path, path: guestpath.GuestPath = ALL) -> tuple[Path, Copied]:
    """All files of the snapshot of one disk."""
    copied = Copied()
    folder.mkdir()
    with Contents(*snapshot_of(image)) as contents:
        tree, top = contents.find(path)
        extraction.copy(tree, top, folder, "copy", copied, lambda _: None)
    assert not copied.troubles.count, copied.troubles.kept
    return folder / "copy", copied


def assert_sparse(copy: Path) -> None:
    assert filetrees.allocated(copy / "sparse") < MIB


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4", "ext4 old inodes", "xfs"])
def test_all_that_linux_keeps_of_files(tmp_path: Path, kind: str) -> None:
    options = ("-I", "128") if "old" in kind else ()
    kind = kind.split()[0]
    image = filetrees.make(kind, tmp_path / "image", 320 * MIB, *options)
    with filetrees.mounted(image, tmp_path / "mnt") as mnt:
        filetrees.fill(mnt)
        expected = filetrees.describe(mnt)
    copy, copied = copied_out(image, tmp_path / "out")
    assert filetrees.describe(copy) == expected
    assert not copied.lacking
    assert_sparse(copy)
    if kind in ("ext4", "xfs"):
        assert filetrees.allocated(copy / "reserved") < MIB


def test_many_and_large_xattrs(tmp_path: Path) -> None:
    """More than the inode has room for: in a block of their own."""
    image = filetrees.make("ext4", tmp_path / "image", 32 * MIB, "-b", "4096")
    with filetrees.mounted(image, tmp_path / "mnt") as mnt:
        (mnt / "file").touch()
        for number in range(20):
            os.setxattr(mnt / "file", f"user.number{number}", os.urandom(100))
        expected = filetrees.describe(mnt)
    copy, _ = copied_out(image, tmp_path / "out")
    assert filetrees.describe(copy) == expected


def test_attributes_of_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "link").symlink_to("folder")
    os.mkfifo(tree / "fifo")
    (tmp_path / "large").write_bytes(bytes(6000))
    image = filetrees.make("ext4", tmp_path / "image", 32 * MIB, "-b", "4096", "-O", "ea_inode", "-d", tree)
    names = ("folder", "link", "fifo")
    told = "".join(f"ea_set -f {tmp_path}/large /{name} trusted.large\nea_set /{name} trusted.x y\n" for name in names)
    done = subprocess.run(["/sbin/debugfs", "-w", "-f", "-", image], input=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    copy, copied = copied_out(image, tmp_path / "out")
    assert copied.lacking.pop("the extended attribute trusted.large is too large to be read, and was left out") == 3
    if os.geteuid() == 0:
        assert [os.getxattr(copy / name, "trusted.x", follow_symlinks=False) for name in names] == [b"y"] * 3
        assert not copied.lacking
    else:
        assert copied.lacking["the system refused the extended attribute trusted.x"] == 3

    def no_place(*_: object) -> None:
        """As ext4 answers, which is not full."""
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "setxattr", no_place)
    _, copied = copied_out(image, tmp_path / "again")
    assert copied.lacking["the system refused the extended attribute trusted.x"] == 3


def test_content_within_the_inode(tmp_path: Path) -> None:
    image = filetrees.make("ext4", tmp_path / "image", 32 * MIB, "-O", "inline_data", "-I", "256")
    with filetrees.mounted(image, tmp_path / "mnt") as mnt:
        for size in (1, 59, 60, 61, 100, 140):
            (mnt / f"of {size} bytes").write_bytes(os.urandom(size))
        (mnt / "folder").mkdir()
        (mnt / "folder/short").write_bytes(b"x")
        expected = filetrees.describe(mnt)
    copy, _ = copied_out(image, tmp_path / "out")
    assert filetrees.describe(copy) == expected


def test_files_on_ntfs_are_read_as_they_are(tmp_path: Path) -> None:
    image = filetrees.make("ntfs", tmp_path / "image", 160 * MIB)
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt", "-o", "compression") as mnt:
        filetrees.fill(mnt, posix=False)
        (mnt / "pressed").mkdir()
        # FILE_ATTRIBUTE_COMPRESSED, which files in it inherit.
        os.setxattr(mnt / "pressed", "system.ntfs_attrib_be", (0x810).to_bytes(4, "big"))
        (mnt / "pressed/file").write_bytes(b"compress this " * 50_000 + os.urandom(70_000) + bytes(200_000))
        assert filetrees.allocated(mnt / "pressed/file") < 600_000, "it was not compressed: the test shows nothing"
        (mnt / "ümläut €").write_bytes(b"x")
        expected = filetrees.plainly(filetrees.describe(mnt))
    copy, _ = copied_out(image, tmp_path / "out")
    assert filetrees.plainly(filetrees.describe(copy)) == expected
    assert_sparse(copy)


def test_what_was_never_written_is_zero_on_ntfs(tmp_path: Path) -> None:
    """Clusters beyond the initialised size hold what was there before."""
    image = filetrees.make("ntfs", tmp_path / "image", 32 * MIB)
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt") as mnt:
        (mnt / "file").write_bytes(b"secret of another" * 20_000)
    _set_initialized_size(image, b"secret of another" * 20_000, 1000)
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt", "-o", "ro") as mnt:
        expected = (mnt / "file").read_bytes()
        assert expected.endswith(bytes(1000))
    copy, _ = copied_out(image, tmp_path / "out")
    assert (copy / "file").read_bytes() == expected


def _set_initialized_size(image: Path, content: bytes, size: int) -> None:
    """In the only record whose data has this length three times over: allocated is rounded up, so twice."""
    data = bytearray(image.read_bytes())
    length = len(content).to_bytes(8, "little")
    at = data.index(length + length)
    data[at + 8 : at + 16] = size.to_bytes(8, "little")
    image.write_bytes(data)


@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_files_on_fat_are_read_as_they_are(tmp_path: Path, bits: str) -> None:
    size = 8 if bits == "12" else 160
    image = filetrees.make("vfat", tmp_path / "image", size * MIB, "-F", bits)
    tree = tmp_path / "tree"
    tree.mkdir()
    if bits == "12":
        (tree / "file").write_bytes(os.urandom(100_000))
    else:
        filetrees.fill(tree, posix=False)
        (tree / "Ümläut €").write_bytes(b"x")
    filetrees.into_fat(image, tree)
    copy, _ = copied_out(image, tmp_path / "out")
    assert filetrees.plainly(filetrees.describe(copy)) == filetrees.plainly(filetrees.describe(tree))


def test_files_on_exfat_are_read_as_they_are(tmp_path: Path) -> None:
    image = filetrees.make("exfat", tmp_path / "image", 160 * MIB)
    with (
        filetrees.attached(image) as device,
        filetrees.served("mount.exfat-fuse", device, tmp_path / "mnt") as mnt,
    ):
        filetrees.fill(mnt, posix=False)
        (mnt / "Ümläut €").write_bytes(b"x")
        expected = filetrees.plainly(filetrees.describe(mnt))
    copy, _ = copied_out(image, tmp_path / "out")
    assert filetrees.plainly(filetrees.describe(copy)) == expected


def test_names_of_windows_are_found_in_any_case(tmp_path: Path) -> None:
    image = filetrees.make("vfat", tmp_path / "image", 64 * MIB)
    (tmp_path / "Users").mkdir()
    (tmp_path / "Users/A long name.txt").write_bytes(b"x")
    filetrees.into_fat(image, tmp_path, "Users")
    with Contents(*snapshot_of(image)) as contents:
        _, file = contents.find(guestpath.GuestPath("", "", r"\USERS\a long NAME.txt"))
        assert file.path == "/Users/A long name.txt"


def test_a_tar_archive_is_the_same_to_gnu_tar(tmp_path: Path) -> None:
    image = filetrees.make("ext4", tmp_path / "image", 160 * MIB)
    with filetrees.mounted(image, tmp_path / "mnt") as mnt:
        filetrees.fill(mnt)
        expected = filetrees.describe(mnt)
    copied = Copied()
    with Contents(*snapshot_of(image)) as contents, (tmp_path / "tar").open("wb") as stream:
        archive = Archive(stream, copied)
        archive.add(*contents.find(ALL), "copy", lambda _: None)
        archive.close()
    assert not copied.troubles.count
    assert (tmp_path / "tar").stat().st_size < 6 * MIB
    # An access list is restored by tar as an attribute of that name only if it is told to.
    command: list[str | Path] = ["tar", "-C", tmp_path, "--xattrs", "--xattrs-include=*", "-xpf", tmp_path / "tar"]
    subprocess.run(command, check=True, capture_output=True)
    assert filetrees.describe(tmp_path / "copy") == expected
    assert_sparse(tmp_path / "copy")
    with tarfile.open(tmp_path / "tar") as opened:
        assert opened.extractfile("copy/sparse").read() == (tmp_path / "copy/sparse").read_bytes()  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["ext4", "xfs", "ntfs"])
def test_few_bytes_are_read_for_a_small_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, counting: Callable[[], list[int]]
) -> None:
    image = filetrees.make(kind, tmp_path / "image", 320 * MIB)
    mount = filetrees.mounted if kind != "ntfs" else lambda *them: filetrees.served("ntfs-3g", *them)
    with mount(image, tmp_path / "mnt") as mnt:
        (mnt / "ballast").write_bytes(os.urandom(30 * MIB))
        (mnt / "folder").mkdir()
        (mnt / "folder/small").write_bytes(b"found")
    repo, manifest = snapshot_of(image)
    read = counting()
    with Contents(repo, manifest) as contents:
        _, file = contents.find(guestpath.parse("c0ffee:/folder/small"))
        assert file.system.read(file.details(), 0, 100) == b"found"
    assert 0 < sum(read) < 2 * MIB, "it reads more than it needs"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """The lengths of all reads from now on."""

    def begin() -> list[int]:
        lengths: list[int] = []
        real = DiskView.read

        def read(self: DiskView, start: int, length: int) -> bytes:
            lengths.append(length)
            return real(self, start, length)

        monkeypatch.setattr(DiskView, "read", read)
        return lengths

    return begin


@pytest.mark.parametrize("kind", ["ext4", "ntfs"])
def test_a_journal_that_was_not_replayed_is_told(tmp_path: Path, kind: str) -> None:
    image = filetrees.make(kind, tmp_path / "image", 32 * MIB)
    mount = filetrees.mounted if kind == "ext4" else lambda *them: filetrees.served("ntfs-3g", *them)
    with mount(image, tmp_path / "mnt") as mnt:
        (mnt / "file").write_bytes(b"x" * 100_000)
        os.sync()
        shutil.copy(image, tmp_path / "in use")
    if kind == "ntfs":
        _set_ntfs_dirty(tmp_path / "in use")
    for name, notes in (("image", 0), ("in use", 1)):
        with Contents(*snapshot_of(tmp_path / name)) as contents:
            contents.find(ALL)
            assert len(contents.notes) == notes, name


@pytest.mark.parametrize(("consistency", "notes"), [("filesystem", 0), ("crash", 1), ("offline", 1)])
def test_a_journal_that_tells_nothing_is_told_unless_it_was_frozen(
    tmp_path: Path, consistency: str, notes: int
) -> None:
    """A VM that is off may have been killed."""
    repo, manifest = snapshot_of(filetrees.make("xfs", tmp_path / "image", 320 * MIB))
    with Contents(repo, dataclasses.replace(manifest, consistency=consistency)) as contents:
        contents.find(ALL)
        assert len(contents.notes) == notes


def _set_ntfs_dirty(image: Path) -> None:
    """The flag in $VOLUME_INFORMATION, which follows the version 3.1."""
    data = bytearray(image.read_bytes())
    start = data.index(b"\x70\0\0\0\x28\0\0\0")
    at = data.index(b"\x03\x01", start, start + 64)
    data[at + 2] |= 1
    image.write_bytes(data)


def test_without_the_extra_an_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dissect").mkdir()
    (tmp_path / "dissect/__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(tmp_path))
    image = filetrees.make("xfs", tmp_path / "image", 320 * MIB)
    with Contents(*snapshot_of(image)) as contents, pytest.raises(errors.Unsupported, match=r"headstart\[xfs\]"):
        contents.find(ALL)


def test_a_file_on_a_realtime_device_is_left_out(tmp_path: Path) -> None:
    """Its extents are of that device: the same blocks of this one hold something else."""
    (tmp_path / "content").write_bytes(b"x" * 9000)
    names = ("before", "realtime", "empty")
    files = [f"{name} ---644 0 0 {tmp_path / 'content' if name != 'empty' else '/dev/null'}" for name in names]
    (tmp_path / "tree").write_text("\n".join(["/none", "0 0", "d--755 0 0", *files, "$", ""]))
    image = filetrees.make("xfs", tmp_path / "image", 320 * MIB, "-p", tmp_path / "tree")
    for name in names[1:]:
        set_realtime: list[str | Path] = [
            "/usr/sbin/xfs_db",
            "-x",
            "-c",
            f"path /{name}",
            "-c",
            "write core.realtime 1",
            image,
        ]
        subprocess.run(set_realtime, check=True, capture_output=True)
    with image.open("rb") as file:
        driver = Xfs(
            parserprocess._Disk("disk", 320 * MIB, lambda _, start, length: os.pread(file.fileno(), length, start))
        )
        found = {entry.name: entry.node.number for entry in driver.entries(driver.root)}
        assert driver.details(found["before"]).runs and driver.details(found["empty"]).runs == ()
        assert driver.read(found["before"], 0, 3) == b"xxx"
        with pytest.raises(NotSupported, match="realtime"):
            driver.details(found["realtime"])
        with pytest.raises(NotSupported, match="realtime"):
            driver.read(found["realtime"], 0, 3)


def test_a_large_directory_is_read_in_the_order_of_its_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are in the order of hashes: each would be in another block than the one before."""
    image = filetrees.make("ext4", tmp_path / "image", 64 * MIB)
    with filetrees.mounted(image, tmp_path / "mnt") as mnt:
        (mnt / "many").mkdir()
        for number in range(4000):
            (mnt / f"many/file-{number}").touch()
    asked: list[int] = []

    def ask(name: str, start: int, length: int) -> bytes:
        asked.append(start)
        with image.open("rb") as file:
            file.seek(start)
            return file.read(length)

    monkeypatch.setattr(parserprocess, "_PAGES", 8)
    driver = Ext(parserprocess._Disk("disk", 64 * MIB, ask))
    many = next(entry.node.number for entry in driver.entries(driver.root) if entry.name == "many")
    asked.clear()
    assert {entry.name for entry in driver.entries(many)} == {f"file-{number}" for number in range(4000)}
    assert len(asked) < 100


def reparse(tag: int, real: str, shown: str, flags: bytes) -> bytes:
    """As Windows stores symbolic links (with flags) and junctions."""
    names = [name.encode("utf-16-le") for name in (real, shown)]
    places = struct.pack("<HHHH", 0, len(names[0]), len(names[0]), len(names[1]))
    data = places + flags + b"".join(names)
    return struct.pack("<IHH", tag, len(data), 0) + data


def test_links_of_windows_and_what_only_windows_can_read(tmp_path: Path) -> None:
    image = filetrees.make("ntfs", tmp_path / "image", 32 * MIB)
    points = {
        "link": reparse(0xA000000C, "\\??\\C:\\Users\\ann", "C:\\Users\\ann", bytes(4)),
        "near": reparse(0xA000000C, "Users\\ann", "Users\\ann", b"\1\0\0\0"),
        "junction": reparse(0xA0000003, "\\??\\C:\\Users", "", b""),
        "pressed": struct.pack("<IHH", 0x80000017, 16, 0) + struct.pack("<IIII", 1, 2, 1, 0),
    }
    with filetrees.served("ntfs-3g", image, tmp_path / "mnt") as mnt:
        (mnt / "Windows").mkdir()
        (mnt / "Users/ann").mkdir(parents=True)
        (mnt / "Users/ann/letter").write_bytes(b"dear")
        for name, data in points.items():
            (mnt / name).mkdir() if name in ("junction", "link", "near") else (mnt / name).touch()
            os.setxattr(mnt / name, "system.ntfs_reparse_data", data)
    copied = Copied()
    with Contents(*snapshot_of(image)) as contents:
        _, letter = contents.find(guestpath.parse("c0ffee:C:\\link\\letter"))
        assert letter.system.read(letter.details(), 0, 10) == b"dear"
        for path in ("near/letter", "junction/ann/letter"):
            assert contents.find(guestpath.parse(f"c0ffee:/{path}"))[1].path == "/Users/ann/letter"
        extraction.copy(*contents.find(ALL), tmp_path, "copy", copied, lambda _: None)
    assert (tmp_path / "copy/link").readlink() == Path("C:/Users/ann")
    assert [(path, "CompactOS" in why) for path, why in copied.troubles.kept] == [("/pressed", True)]
    assert not (tmp_path / "copy/pressed").exists()
