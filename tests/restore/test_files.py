"""New files: raw and qcow2."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.restore import space
from headstart.restore.partfile import PartFile
from headstart.restore.qcow2 import Qcow2File
from headstart.restore.raw import RawFile
from headstart.units import GIB, MIB, TIB


def test_a_part_left_by_a_killed_restore_is_named(tmp_path: Path) -> None:
    (tmp_path / "disk.raw.part").write_bytes(b"somebody's")
    with pytest.raises(errors.TargetRefused, match=r"disk\.raw\.part exists.*remove it"):
        PartFile(tmp_path / "disk.raw")
    assert (tmp_path / "disk.raw.part").read_bytes() == b"somebody's"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with PartFile(tmp_path / "disk.raw") as part:
        part.write(0, [b"ours"])
        (tmp_path / "disk.raw").write_bytes(b"theirs")
        with pytest.raises(errors.TargetRefused, match="exists and is not overwritten"):
            part.finish()
    assert (tmp_path / "disk.raw").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_a_broken_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.TargetRefused):
        PartFile(tmp_path / "disk.raw")


def test_without_hard_links_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with PartFile(tmp_path / "disk.raw") as part:
        part.write(0, [b"ours"])
        part.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_a_disk_is_its_owner_s_alone(tmp_path: Path) -> None:
    with PartFile(tmp_path / "disk.raw") as part:
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
