"""The residue on a local disk."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from headstart import errors, extents
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece, Reader
from headstart.transfer.spool import Spool
from headstart.units import KIB, MIB, TIB

FIRST = Extent(MIB - 4 * KIB, 2 * MIB)
HOLE = Extent(5 * MIB, MIB)
LAST = Extent(8 * MIB, 512)


class Point:
    """A disk at a point in time: each sector tells its number, and ``HOLE`` is zeroes."""

    def __init__(self, size: int = 8 * MIB + 512, *, breaks_at: int | None = None) -> None:
        self.size = size
        self.handed: list[Extent] = []
        self.released: list[Extent] = []
        self._breaks_at = breaks_at

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        for extent in wanted:
            for part in extents.split(extent, PIECE_SIZE):
                if part.start == self._breaks_at:
                    raise errors.PointLost("it broke")
                hole = HOLE.start <= part.start and part.end <= HOLE.end
                self.handed.append(part)
                data = None if hole else memoryview(content(part))
                yield Piece(part, data, lambda part=part: self.released.append(part))  # type: ignore[misc]


def content(extent: Extent) -> bytes:
    return b"".join(sector.to_bytes(512, "big") for sector in range(extent.start // 512, extent.end // 512))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool" / "web", "b1")
    made.create()
    return made


def read(reader: Reader, extent: Extent) -> bytes:
    return b"".join(bytes(piece.data or bytes(piece.extent.length)) for piece in reader.read([extent]))


def test_what_is_spooled_is_read_back(spool: Spool) -> None:
    point, told = Point(), list[Extent]()
    wanted = [FIRST, HOLE, LAST]
    assert spool.fill("system", point, wanted, told.append) == 3 * MIB + 512
    assert extents.merge(told) == wanted
    assert point.released == point.handed
    with spool.reader("system") as reader:
        assert reader.size == point.size
        assert read(reader, FIRST) == content(FIRST)
        assert read(reader, LAST) == content(LAST)


def test_holes_take_no_room_and_read_as_zeroes(spool: Spool) -> None:
    spool.fill("system", Point(), [HOLE])
    assert (spool.directory / "system.disk").stat().st_blocks == 0
    with spool.reader("system") as reader:
        assert read(reader, HOLE) == bytes(MIB)


def test_a_spool_takes_the_room_of_the_residue(spool: Spool) -> None:
    spool.fill("system", Point(6 * TIB), [Extent(5 * TIB, 64 * KIB)])
    assert (spool.directory / "system.disk").stat().st_blocks * 512 < MIB
    with spool.reader("system") as reader:
        assert reader.size == 6 * TIB
        assert read(reader, Extent(5 * TIB, 64 * KIB)) == content(Extent(5 * TIB, 64 * KIB))


def test_a_disk_without_residue_has_a_file(spool: Spool) -> None:
    assert spool.fill("system", Point(), []) == 0
    with spool.reader("system") as reader:
        assert reader.size == Point().size


def test_disks_and_files_stand_side_by_side(spool: Spool) -> None:
    spool.fill("one", Point(), [FIRST])
    spool.fill("other", Point(), [LAST])
    spool.keep_file("uefi-variables", b"boot order")
    spool.seal()
    again = Spool(spool.directory.parent, "b1")
    assert again.read_file("uefi-variables") == b"boot order"
    with again.reader("one") as one, again.reader("other") as other:
        assert read(one, FIRST) == content(FIRST)
        assert read(other, LAST) == content(LAST)


def test_filling_says_what_is_safe_only_when_it_is_in_the_file(spool: Spool) -> None:
    """From then on the guest may overwrite it in the point in time."""
    path = spool.directory / "system.disk"

    def check(extent: Extent) -> None:
        with path.open("rb") as file:
            file.seek(extent.start)
            assert file.read(extent.length) == content(extent)

    spool.fill("system", Point(), [FIRST, LAST], check)


def test_a_sealed_spool_is_durable(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is synced after it was written, on the description that it was written with, while others are."""
    fdatasync, began, synced = os.fdatasync, threading.Event(), list[int]()

    def slow(file: int) -> None:
        assert began.wait(10)
        fdatasync(file)
        synced.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fdatasync", slow)
    spool.fill("one", Point(), [FIRST])
    spool.fill("other", Point(), [LAST])
    spool.keep_file("uefi-variables", b"boot order")
    assert synced == []
    began.set()
    spool.seal()
    assert sorted(synced) == sorted(path.stat().st_ino for path in spool.directory.iterdir())


# whose it is


def test_another_completions_spool_is_not_taken(spool: Spool) -> None:
    spool.fill("system", Point(), [FIRST])
    spool.keep_file("uefi-variables", b"")
    other = Spool(spool.directory.parent, "b2")
    with pytest.raises(errors.Damaged, match="unfinished backup is gone"):
        other.reader("system")
    with pytest.raises(errors.Damaged, match="unfinished backup is gone"):
        other.read_file("uefi-variables")


def test_a_new_spool_replaces_those_before(spool: Spool) -> None:
    spool.fill("system", Point(), [FIRST])
    Spool(spool.directory.parent, "b2").create()
    with pytest.raises(errors.Damaged):
        spool.reader("system")


def test_another_vms_spool_stays(spool: Spool) -> None:
    spool.fill("system", Point(), [FIRST])
    other = Spool(spool.directory.parent.parent / "app", "b1")
    other.create()
    other.remove()
    with spool.reader("system") as reader:
        assert read(reader, FIRST) == content(FIRST)


def test_the_same_spool_created_again_is_empty(spool: Spool) -> None:
    spool.fill("system", Point(), [FIRST])
    spool.create()
    assert list(spool.directory.iterdir()) == []
    spool.fill("system", Point(), [LAST])


def test_removing_leaves_nothing_and_may_come_twice(spool: Spool) -> None:
    spool.fill("system", Point(), [FIRST])
    spool.remove()
    assert not spool.directory.parent.exists()
    spool.remove()


# trouble


def test_a_place_that_cannot_hold_a_spool_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.Usage, match="cannot be made"):
        Spool(tmp_path / "file" / "web", "b1").create()


def test_a_point_that_is_lost_is_told_as_that(spool: Spool) -> None:
    point = Point(breaks_at=2 * MIB)
    with pytest.raises(errors.PointLost):
        spool.fill("system", point, [FIRST])
    assert point.released == point.handed


def assert_no_space(spool: Spool, point: Point) -> None:
    with pytest.raises(errors.NoSpace, match="Make room there, or name another --scratch"):
        spool.fill("system", point, [FIRST, HOLE, LAST])
        spool.seal()
    assert point.released == point.handed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["truncate", "pwrite", "fdatasync"])
def test_a_file_that_cannot_be_written_is_told(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    assert_no_space(spool, Point())


def test_a_file_system_that_takes_pieces_of_a_write_gets_all(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:100_000], offset))
    spool.fill("system", Point(), [FIRST])
    with spool.reader("system") as reader:
        assert read(reader, FIRST) == content(FIRST)


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "headstart-test", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_file_system_is_told(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small") as folder:
        spool = Spool(folder / "web", "b1")
        spool.create()
        assert_no_space(spool, Point())
        with pytest.raises(errors.NoSpace):
            spool.keep_file("uefi-variables", bytes(2 * MIB))
        spool.remove()
        assert list(folder.iterdir()) == []
