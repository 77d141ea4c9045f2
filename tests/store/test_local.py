"""The local store: what survives a power cut, and what a file system may answer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.store import local
from headstart.store.contract import Exists
from headstart.store.local import LocalStore


class Disk:
    """What a power cut would leave of a directory, learned from the system calls.

    Content survives if it was synced; a name if its folder was synced after the name was given; and so on up.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.synced: set[int] = set()  # inodes of files
        self.names: dict[Path, int | None] = {}  # durable names: inode, or None for a folder
        self._waiting: dict[Path, int | None] = {}
        self._fsync, self._link, self._mkdir = os.fsync, os.link, os.mkdir
        for name in ("fsync", "link", "mkdir"):
            monkeypatch.setattr(os, name, getattr(self, name))

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            done = {name: inode for name, inode in self._waiting.items() if name.parent == path}
            self.names |= done
            self._waiting = {name: inode for name, inode in self._waiting.items() if name not in done}
        else:
            self.synced.add(os.fstat(descriptor).st_ino)

    def link(self, source: Path, target: Path) -> None:
        self._link(source, target)
        inode = target.stat().st_ino
        assert inode in self.synced, "a name for content that is not durable"
        self._waiting[target] = inode

    def mkdir(self, path: Path, *arguments: Any) -> None:
        self._mkdir(path, *arguments)
        self._waiting[Path(path)] = None

    def survives(self, key: str) -> bool:
        path = self.root / key
        folders = [parent for parent in path.parents if self.root in (parent, *parent.parents)]
        return self.names.get(path) in self.synced and all(folder in self.names for folder in folders)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "repository", monkeypatch)


def test_what_was_created_survives_a_power_cut(disk: Disk) -> None:
    store = LocalStore(disk.root)
    for key in ("config", "packs/a", "packs/b", "drafts/x/0", "drafts/x/1"):
        store.create(key, b"content")
        assert disk.survives(key)


def test_what_is_said_to_exist_survives_too(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first creator died between link and fsync of the folder; the second is told that it exists."""
    fsync = os.fsync

    def dies(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir() and list((disk.root / "packs").glob("*")):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", dies)
        with pytest.raises(errors.StoreFailed):
            LocalStore(disk.root).create("packs/a", b"content")
    assert not disk.survives("packs/a")
    with pytest.raises(Exists):
        LocalStore(disk.root).create("packs/a", b"content")
    assert disk.survives("packs/a")


def test_folders_of_another_process_are_synced_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.root.mkdir()
    (disk.root / "drafts").mkdir()
    (disk.root / "drafts" / "x").mkdir()
    LocalStore(disk.root).create("drafts/x/0", b"content")
    assert disk.survives("drafts/x/0")


def test_leaves_no_temporary_files(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("one", b"x")
    with pytest.raises(Exists):
        store.create("one", b"x")
    assert list((tmp_path / local.TEMPORARY).iterdir()) == []


def test_lost_link_reply_of_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request made the link, its reply was lost, the repeated one finds the name taken."""
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", repeated)
    LocalStore(tmp_path).create("one", b"x")
    assert LocalStore(tmp_path).read("one") == b"x"


@pytest.mark.parametrize("number", sorted({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}))
def test_refuses_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    with pytest.raises(errors.Unsupported, match=r"without hard links.*Use a directory on ext4"):
        LocalStore(tmp_path).create("one", b"x")
    assert list(tmp_path.rglob("*")) == [tmp_path / local.TEMPORARY]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("call", "number", "kind", "said"),
    [
        ("write", errno.ENOSPC, errors.NoSpace, "No space left.*Make room"),
        ("write", errno.EDQUOT, errors.NoSpace, "quota.*Make room"),
        ("fsync", errno.ENOSPC, errors.NoSpace, "No space left"),
        ("fsync", errno.EIO, errors.StoreFailed, "Input/output error"),
        ("write", errno.EIO, errors.StoreFailed, "Input/output error"),
        ("link", errno.EXDEV, errors.Unsupported, "one file system"),
        ("link", errno.EIO, errors.StoreFailed, "Input/output error"),
        ("link", errno.ENOENT, errors.StoreFailed, "still mounted"),
        ("open", errno.EACCES, errors.StoreFailed, "Permission denied.*a user who may"),
        ("open", errno.EROFS, errors.StoreFailed, "Read-only.*mounted"),
        ("open", errno.ESTALE, errors.StoreFailed, "Stale"),
    ],
)
def test_errors_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[Exception], said: str
) -> None:
    store = LocalStore(tmp_path)
    store.create("packs/zero", b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(number))
        with pytest.raises(kind, match=said) as caught:
            store.create("packs/one", b"x")
    assert type(caught.value) is kind
    assert str(tmp_path) in str(caught.value)
    assert dict(store.list("packs/")) == {"packs/zero": 1}
    assert list((tmp_path / local.TEMPORARY).iterdir()) == []
    store.create("packs/one", b"x")


def test_an_object_that_the_disk_cannot_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.create("packs/one", b"x")
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    with pytest.raises(errors.Damaged, match="Check the disk") as caught:
        store.read_range("packs/one", 0, 1)
    assert caught.value.facts["object"] == "packs/one"


def test_short_reads_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: pread(descriptor, min(length, 3), offset))
    store = LocalStore(tmp_path)
    store.create("one", b"0123456789")
    assert store.read("one") == b"0123456789"
    assert store.read_range("one", 2, 7) == b"2345678"
    assert store.read_range("one", 8, 7) == b"89"


PAGE = mmap.PAGESIZE


@contextlib.contextmanager
def pages(length: int) -> Iterator[memoryview]:
    """Memory that begins on a page, as the buffer of a pack does, with ``length`` bytes no page of which is another."""
    with mmap.mmap(-1, length) as memory, memoryview(memory) as view:
        for start in range(0, length, PAGE):
            view[start : start + PAGE] = (b"%016d" % start * (PAGE // 16))[: len(view) - start]
        yield view


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of writes past the page cache, once they are made."""
    write, made = os.write, []

    def noted(descriptor: int, data: memoryview) -> int:
        written = write(descriptor, data)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            made.append(written)
        return written

    monkeypatch.setattr(os, "write", noted)
    return made


LARGE = local.WORTH_DIRECT


@pytest.mark.parametrize("length", [LARGE, LARGE + 1, LARGE + PAGE - 1, LARGE + PAGE, 5 * LARGE + 777])
def test_whole_pages_of_a_large_object_pass_the_page_cache(tmp_path: Path, direct: list[int], length: int) -> None:
    with pages(length) as data:
        LocalStore(tmp_path).create("one", data)
        assert LocalStore(tmp_path).read("one") == data
    assert sum(direct) == length // PAGE * PAGE


def test_a_small_object_is_worth_no_direct_write(tmp_path: Path, direct: list[int]) -> None:
    with pages(LARGE - 1) as data:
        LocalStore(tmp_path).create("one", data)
        assert LocalStore(tmp_path).read("one") == data
    assert direct == []


@pytest.mark.parametrize("offset", [1, 8, 511, 512])
def test_memory_that_begins_on_no_page(tmp_path: Path, offset: int) -> None:
    with pages(3 * LARGE) as data, data[offset:] as part:
        LocalStore(tmp_path).create("one", part)
        assert LocalStore(tmp_path).read("one") == part


@pytest.mark.parametrize("whole_writes", [0, 2])
def test_a_file_system_that_refuses_direct_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_writes: int
) -> None:
    """At once, or after some."""
    write, pages_left = os.write, iter(range(whole_writes))

    def refuse(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT and next(pages_left, None) is None:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(descriptor, data[:PAGE])

    monkeypatch.setattr(os, "write", refuse)
    with pages(LARGE + 777) as data:
        LocalStore(tmp_path).create("one", data)
        assert LocalStore(tmp_path).read("one") == data


def test_a_real_file_system_without_direct_writes(tmp_path: Path) -> None:
    """Kernels before 6.6 refuse them on tmpfs."""
    with mounted(tmp_path / "small", "mount", "-t", "tmpfs", "tmpfs"), pages(LARGE + 777) as data:
        LocalStore(tmp_path / "small").create("one", data)
        assert LocalStore(tmp_path / "small").read("one") == data


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, errors.NoSpace), (errno.EIO, errors.StoreFailed)])
def test_a_direct_write_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr(os, "write", failing(number))
    with pages(LARGE) as data, pytest.raises(kind):
        LocalStore(tmp_path).create("one", data)
    assert list(tmp_path.rglob("*")) == [tmp_path / local.TEMPORARY]


def test_removes_what_dead_writers_left(tmp_path: Path) -> None:
    LocalStore(tmp_path).create("zero", b"x")
    old, young = (tmp_path / local.TEMPORARY / name for name in ("old", "young"))
    for path, age in ((old, local.ABANDONED_AFTER + 60), (young, local.ABANDONED_AFTER - 60)):
        path.write_bytes(b"part")
        os.utime(path, (time.time() - age,) * 2)
    LocalStore(tmp_path).create("one", b"x")
    assert not old.exists()
    assert young.exists()


def test_the_age_of_an_object_is_not_that_of_its_content(tmp_path: Path) -> None:
    """An object of a slow upload, or one that was copied with its times, is not older than its name."""
    store = LocalStore(tmp_path)
    before = store.clock()
    store.create("one", b"x")
    os.utime(tmp_path / "one", (1, 1))
    assert next(created for _, _, created in store.modified("one")) >= before


def test_temporary_files_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("one", b"x")
    (tmp_path / local.TEMPORARY / "part").write_bytes(b"x")
    assert dict(store.list("")) == {"one": 1}


def test_foreign_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    (tmp_path / "my photos" / ".hidden").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert dict(LocalStore(tmp_path).list("")) == {"my photos/.hidden": 1}


def test_empty_folders_of_drafts_go(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("drafts/x/0", b"x")
    store.delete("drafts/x/0")
    assert [path.name for path in tmp_path.iterdir() if path.name != local.TEMPORARY] == ["drafts"]
    assert list((tmp_path / "drafts").iterdir()) == []


def test_a_folder_that_another_process_removed_is_made_again(tmp_path: Path) -> None:
    ours, theirs = LocalStore(tmp_path), LocalStore(tmp_path)
    ours.create("drafts/x/0", b"x")
    theirs.delete("drafts/x/0")
    ours.create("drafts/x/1", b"x")
    assert dict(ours.list("drafts/")) == {"drafts/x/1": 1}


def test_an_unmounted_place_is_not_filled(tmp_path: Path) -> None:
    """What was the mount point must not become a second repository on the disk below it."""
    store = LocalStore(tmp_path / "mount")
    store.create("packs/one", b"x")
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    (tmp_path / "mount").mkdir()
    with pytest.raises(errors.StoreFailed, match="still mounted"):
        store.create("packs/two", b"x")
    assert list((tmp_path / "mount").iterdir()) == []


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    LocalStore(tmp_path / "repository").create("packs/one", b"x")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "repository").rglob("*")}
    assert modes == {local.TEMPORARY: 0o700, "packs": 0o700, "one": 0o600}


@contextlib.contextmanager
def mounted(target: Path, *command: str) -> Iterator[None]:
    target.mkdir(exist_ok=True)
    done = subprocess.run([*command, str(target)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_full_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs"):
        store = LocalStore(tmp_path / "small")
        store.create("packs/one", bytes(100_000))
        with pytest.raises(errors.NoSpace, match="Make room"):
            store.create("packs/two", bytes(1_000_000))
        assert dict(store.list("")) == {"packs/one": 100_000}
        store.create("packs/two", bytes(100_000))


def test_a_read_only_file_system(tmp_path: Path) -> None:
    LocalStore(tmp_path / "real").create("packs/one", b"x")
    with mounted(tmp_path / "real", "mount", "--bind", "-o", "ro", str(tmp_path / "real")):
        store = LocalStore(tmp_path / "real")
        assert store.read("packs/one") == b"x"
        with pytest.raises(errors.StoreFailed, match="Read-only file system"):
            store.create("packs/two", b"x")


def test_a_real_file_system_without_hard_links(tmp_path: Path) -> None:
    if not (shutil.which("mkfs.exfat") and shutil.which("mount.exfat-fuse")):
        pytest.skip("needs exfatprogs and exfat-fuse")
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout
    try:
        with (
            mounted(tmp_path / "stick", "mount.exfat-fuse", device.strip()),
            pytest.raises(errors.Unsupported, match="without hard links"),
        ):
            LocalStore(tmp_path / "stick" / "repository").create("config", b"x")
    finally:
        subprocess.run(["losetup", "-d", device.strip()], check=True)
