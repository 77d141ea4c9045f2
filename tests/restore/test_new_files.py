"""New files: raw and qcow2."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.restore import space
from headstart.restore.partfile import PartFile
from headstart.restore.qcow2 import Qcow2File
from headstart.restore.raw import RawFile
from headstart.units import GIB, MIB, TIB


def killed(place: Path, size: int = 0, content: bytes = b"") -> None:
    """Leaves what a restore does that is killed while it writes."""
    process = os.fork()
    if process == 0:
        PartFile(place, size).write(0, [content])
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 512])
def test_a_part_left_by_a_killed_restore_is_replaced(tmp_path: Path, size: int) -> None:
    killed(tmp_path / "disk.raw", size, b"x" * min(size, 1000))
    assert (tmp_path / "disk.raw.part").stat().st_size > size
    with PartFile(tmp_path / "disk.raw", 1536) as part:
        assert part.notes == (f"{tmp_path}/disk.raw.part, which an interrupted restore had left behind, was replaced",)
        part.write(0, [b"ours"])
        part.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"ours".ljust(1536, b"\0")
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_a_part_of_a_restore_that_was_killed_at_once_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk.raw.part").touch(0o600)
    with PartFile(tmp_path / "disk.raw", 0) as part:
        part.finish()


def test_a_part_that_another_restore_writes_is_refused(tmp_path: Path) -> None:
    with PartFile(tmp_path / "disk.raw", 4) as part:
        assert part.notes == ()
        part.write(0, [b"ours"])
        with pytest.raises(errors.TargetRefused, match=r"disk\.raw\.part exists.*another restore.*Wait"):
            PartFile(tmp_path / "disk.raw", 4)
        part.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"ours"


def foreign_content(part: Path) -> None:
    part.write_bytes(b"precious" * 1000)
    part.chmod(0o600)


def others_may_read(part: Path) -> None:
    killed(part.with_suffix(""), 4, b"ours")
    part.chmod(0o644)


def second_name(part: Path) -> None:
    killed(part.with_suffix(""), 4, b"ours")
    part.with_name("other").hardlink_to(part)


def link(part: Path) -> None:
    killed(part.with_name("elsewhere"), 4, b"ours")
    part.symlink_to(part.with_name("elsewhere.part"))


def broken_link(part: Path) -> None:
    part.symlink_to(part.with_name("elsewhere"))


@pytest.mark.parametrize(
    "make", [foreign_content, others_may_read, second_name, link, broken_link, Path.mkdir, os.mkfifo]
)
def test_a_part_that_is_not_ours_is_not_touched(tmp_path: Path, make: Callable[[Path], None]) -> None:
    part = tmp_path / "disk.raw.part"
    make(part)
    before = {path.name: (path.lstat(), path.is_file() and path.read_bytes()) for path in tmp_path.iterdir()}
    with pytest.raises(errors.TargetRefused, match=r"disk\.raw\.part exists.*remove it; else restore to another place"):
        PartFile(tmp_path / "disk.raw", 4)
    after = {path.name: (path.lstat(), path.is_file() and path.read_bytes()) for path in tmp_path.iterdir()}
    assert {name: (found.st_ino, found.st_mtime_ns, content) for name, (found, content) in after.items()} == {
        name: (found.st_ino, found.st_mtime_ns, content) for name, (found, content) in before.items()
    }


def test_without_locks_a_leftover_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether somebody works on it."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    killed(tmp_path / "disk.raw", 4, b"left")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(errors.TargetRefused, match="remove it"):
        PartFile(tmp_path / "disk.raw", 4)
    with PartFile(tmp_path / "other.raw", 4) as part:
        part.finish()


def test_one_of_many_gets_a_leftover(tmp_path: Path) -> None:
    """Each that finishes or gives up takes the name away while others look at it."""
    killed(tmp_path / "disk.raw", 4, b"left")
    working: list[int] = []
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            with contextlib.suppress(errors.TargetRefused), PartFile(tmp_path / "disk.raw", 4):
                working.append(number)
                wrong.extend(working[1:])
                working.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with PartFile(tmp_path / "disk.raw", 4) as part:
        part.write(0, [b"ours"])
        (tmp_path / "disk.raw").write_bytes(b"theirs")
        with pytest.raises(errors.TargetRefused, match="exists and is not overwritten"):
            part.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_a_broken_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.TargetRefused):
        PartFile(tmp_path / "disk.raw", 0)


def test_without_hard_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with PartFile(tmp_path / "disk.raw", 4) as part:
        part.write(0, [b"ours"])
        part.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_a_disk_is_its_owner_s_alone(tmp_path: Path) -> None:
    with PartFile(tmp_path / "disk.raw", 0) as part:
        part.finish()
    assert (tmp_path / "disk.raw").stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.TargetRefused, match="No such file or directory"):
        RawFile(tmp_path / "missing" / "disk.raw", 512)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.TargetRefused, match="Not a directory"):
        RawFile(tmp_path / "file" / "disk.raw", 512)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_zeroes_take_no_space(tmp_path: Path, kind: str) -> None:
    target = (
        RawFile(tmp_path / "disk", 4 * GIB)
        if kind == "raw"
        else Qcow2File(tmp_path / "disk", 4 * GIB, Blocks([]), 65536)
    )
    with target:
        target.finish()
    assert (tmp_path / "disk").stat().st_blocks * 512 <= 512 << 10


def test_a_file_larger_than_the_file_system_takes_is_refused(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        with pytest.raises(errors.TargetRefused, match="File too large"):
            RawFile(tmp_path / "disk.raw", GIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_file_system_is_no_space_and_keeps_nothing(full_soon: Path) -> None:
    with pytest.raises(errors.NoSpace, match="Make room there"), RawFile(full_soon / "disk.raw", GIB) as target:
        target.write(0, [bytes(65536)] * 15)
        target.write(MIB - 65536, [b"x" * 65536] * 3)  # cut short within the pieces
    assert list(full_soon.iterdir()) == []


def test_space_is_looked_for_beforehand(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    half = free // 2 + GIB
    space.check([(tmp_path, half)])
    with pytest.raises(errors.NoSpace, match="the restore needs"):
        space.check([(tmp_path, half), (tmp_path / "other", half)])
    with pytest.raises(errors.NoSpace):
        space.check([(tmp_path, 4096 * TIB)])
