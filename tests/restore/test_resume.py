"""A restore that was interrupted goes on: what is there already is recognised by what it is, and by nothing else."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from headstart import errors
from headstart.repository import Repository
from headstart.repository.manifest import Manifest
from headstart.restore import image, imagelock, present, restoration, writing
from headstart.restore.order import Order, Wish
from headstart.restore.restoration import Report
from headstart.store.contract import Data
from headstart.store.local import LocalStore
from tests.kit import compare, stores
from tests.kit.disks import Format
from tests.restore import stored

BLOCK = stored.BLOCK
#: Data, holes, repeated blocks, and a short end.
BIG = stored.content(*(0 if block % 7 == 3 else block % 250 for block in range(1, 400)), tail=1536)
SMALL = stored.content(0, 1, 2, 0)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with stores.new_repository(LocalStore(tmp_path / "repository")) as made:
        yield made


@pytest.fixture
def manifest(repo: Repository) -> Manifest:
    return stored.store_snapshot(repo, {"small": SMALL, "big": BIG}, {"definition": b"qemu-system-x86_64 -m 1G"})


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "BATCH", 4 * BLOCK)
    monkeypatch.setattr(image, "WINDOW", 128)
    monkeypatch.setattr(present, "_STRETCH", 50)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each write to a target from here on."""
    found: list[int] = []
    right = writing.Direct.write

    def write(self: writing.Direct, start: int, pieces: Sequence[Data]) -> None:
        found.append(sum(map(len, pieces)))
        right(self, start, pieces)

    monkeypatch.setattr(writing.Direct, "write", write)
    return found


def restore(repo: Repository, manifest: Manifest, order: Order, progress: image.Progress = lambda *_: None) -> Report:
    return restoration.restore(repo, manifest, order, progress)


def fail_at(share: float) -> image.Progress:
    def progress(what: str, done: int, total: int) -> None:
        if what == "big" and done >= share * total:
            raise errors.StoreFailed("The network is gone.")

    return progress


def kill_at(share: float, repo: Repository, manifest: Manifest, order: Order) -> None:
    """A process of its own restores, and is killed in the middle."""

    def progress(what: str, done: int, total: int) -> None:
        if what == "big" and done >= share * total:
            os.kill(os.getpid(), signal.SIGKILL)

    process = os.fork()
    if process == 0:
        try:
            restore(repo, manifest, order, progress)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def check(folder: Path, image_format: Format) -> None:
    for name, content in (("small", SMALL), ("big", BIG)):
        with compare.as_raw(folder / f"{name}.{image_format}", image_format) as raw:
            assert raw.read_bytes() == content
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_failed_restore_goes_on(
    repo: Repository, manifest: Manifest, tmp_path: Path, written: list[int], image_format: Format
) -> None:
    order = Order(tmp_path / "out", format=image_format)
    part = tmp_path / "out" / f"big.{image_format}.part"
    with pytest.raises(errors.StoreFailed) as failed:
        restore(repo, manifest, order, fail_at(0.6))
    assert failed.value.__notes__ == [
        f"What was restored is kept in {part}: give the same command again to go on, or remove it."
    ]
    before = sum(written)
    written.clear()
    report = restore(repo, manifest, order)
    check(tmp_path / "out", image_format)
    small, big = report.disks
    assert small.kept_bytes == small.data_bytes == 2 * BLOCK
    assert big.kept_bytes >= 0.5 * big.data_bytes
    # All of it together is written once (and the tables of a qcow2, at the end).
    assert sum(written) <= big.data_bytes - big.kept_bytes + 8 * BLOCK
    assert sum(written) + before >= big.data_bytes
    assert any("gone on with" in note for note in report.notes)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_a_killed_restore_goes_on(
    repo: Repository, manifest: Manifest, tmp_path: Path, image_format: Format, share: float
) -> None:
    order = Order(tmp_path / "out", format=image_format)
    kill_at(share, repo, manifest, order)
    report = restore(repo, manifest, order)
    check(tmp_path / "out", image_format)
    assert share < 0.5 or report.disks[1].kept_bytes >= 0.4 * report.disks[1].data_bytes


@pytest.mark.parametrize("seed", range(4))
def test_what_is_not_as_it_should_be_is_written_anew(
    repo: Repository, manifest: Manifest, tmp_path: Path, seed: int
) -> None:
    """Whatever a power cut made of the file: blocks that were never written, torn, or of another place."""
    image_format: Format = "qcow2" if seed % 2 else "raw"
    order = Order(tmp_path / "out", format=image_format)
    part = tmp_path / "out" / f"big.{image_format}.part"
    kill_at(0.9, repo, manifest, order)
    source = random.Random(seed)
    with part.open("r+b") as file:
        blocks = part.stat().st_size // BLOCK - 1
        for block in source.sample(range(8, blocks), 60):
            file.seek(block * BLOCK)
            if file.read(BLOCK).count(0) == BLOCK:
                continue  # a hole: what nobody wrote to
            file.seek(block * BLOCK + source.choice([0, 512, BLOCK - 1]))
            file.write(source.choice([bytes(512), b"x", source.randbytes(1)]))
    report = restore(repo, manifest, order)
    check(tmp_path / "out", image_format)
    assert 0 < report.disks[1].kept_bytes < report.disks[1].data_bytes


def test_a_part_of_another_snapshot_is_replaced(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    other = stored.store_snapshot(repo, {"big": b"other".ljust(BLOCK, b"!") * (len(BIG) // BLOCK) + bytes(1536)})
    order = Order(tmp_path / "out", (Wish("big"),), "raw")
    kill_at(0.9, repo, other, order)
    report = restore(repo, manifest, order)
    assert any("was replaced" in note for note in report.notes) and report.disks[0].kept_bytes == 0
    assert (tmp_path / "out" / "big.raw").read_bytes() == BIG


def test_a_device_gets_what_it_lacks(repo: Repository, manifest: Manifest, tmp_path: Path, written: list[int]) -> None:
    with stored.loop_device(tmp_path / "backing", len(BIG)) as device:
        order = Order(tmp_path / "out", (Wish("big", device),))
        with pytest.raises(errors.StoreFailed) as failed:
            restore(repo, manifest, order, fail_at(0.6))
        assert not hasattr(failed.value, "__notes__")
        written.clear()
        report = restore(repo, manifest, order)
        assert device.read_bytes() == BIG
        assert report.disks[0].kept_bytes >= 0.5 * report.disks[0].data_bytes
        assert sum(written) == report.disks[0].data_bytes - report.disks[0].kept_bytes


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_what_came_to_its_end_is_left_as_it_is(
    repo: Repository, manifest: Manifest, tmp_path: Path, image_format: Format
) -> None:
    order = Order(tmp_path / "out", format=image_format)
    restore(repo, manifest, order)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    report = restore(repo, manifest, order)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert len(report.notes) == 4 and all("was there already, with the same content" in note for note in report.notes)
    check(tmp_path / "out", image_format)


def _data(place: Path) -> None:
    _change(place, -BLOCK)


def _first(place: Path) -> None:
    _change(place, 0)


def _hole(place: Path) -> None:
    """The first block of BIG that is zeroes; in a qcow2 a part of its tables that is."""
    _change(place, 2 * BLOCK + 777)


def _longer(place: Path) -> None:
    with place.open("ab") as file:
        file.write(b"\0")


def _change(place: Path, position: int) -> None:
    with place.open("r+b") as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        file.write(b"!")


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("change", [_data, _first, _hole, _longer])
def test_a_file_that_differs_anywhere_is_not_ours(
    repo: Repository, manifest: Manifest, tmp_path: Path, image_format: Format, change: Callable[[Path], None]
) -> None:
    order = Order(tmp_path / "out", (Wish("big"),), format=image_format)
    restore(repo, manifest, order)
    place = tmp_path / "out" / f"big.{image_format}"
    change(place)
    before = place.read_bytes()
    with pytest.raises(errors.TargetRefused, match="exists and is not overwritten"):
        restore(repo, manifest, order)
    assert place.read_bytes() == before


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
@pytest.mark.parametrize("changed", [False, True])
def test_killed_in_its_last_steps(
    repo: Repository,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image_format: Format,
    changed: bool,
) -> None:
    """The mark is cut off, and the file has not its name yet. One that differs is somebody else's."""
    order = Order(tmp_path / "out", (Wish("big"),), image_format)
    process = os.fork()
    if process == 0:
        monkeypatch.setattr(os, "link", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        restore(repo, manifest, order)
        os._exit(1)
    os.waitpid(process, 0)
    part = tmp_path / "out" / f"big.{image_format}.part"
    assert [path.name for path in part.parent.iterdir()] == [part.name]
    if changed:
        _change(part, -BLOCK)
        with pytest.raises(errors.TargetRefused, match="cannot be told"):
            restore(repo, manifest, order)
        return
    report = restore(repo, manifest, order)
    assert report.disks[0].kept_bytes == report.disks[0].data_bytes
    with compare.as_raw(part.with_suffix(""), image_format) as raw:
        assert raw.read_bytes() == BIG
    assert [path.name for path in part.parent.iterdir()] == [f"big.{image_format}"]


@pytest.mark.parametrize("renamed", [False, True])
def test_killed_with_two_names(
    repo: Repository, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    """The file has its name, and its first one as well. If its owner has taken it away, it is not given out again."""
    order = Order(tmp_path / "out", (Wish("big"),), "raw")
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore(repo, manifest, order)
    place, part = tmp_path / "out" / "big.raw", tmp_path / "out" / "big.raw.part"
    assert place.samefile(part)
    if renamed:
        place.rename(tmp_path / "out" / "web.raw")
        with pytest.raises(errors.TargetRefused, match="cannot be told"):
            restore(repo, manifest, order)
        assert not place.exists()
        return
    restore(repo, manifest, order)
    assert [path.name for path in part.parent.iterdir()] == ["big.raw"]


def _interrupt(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


def test_a_file_that_qemu_uses_is_not_ours(repo: Repository, manifest: Manifest, tmp_path: Path) -> None:
    order = Order(tmp_path / "out", (Wish("small"),))
    restore(repo, manifest, order)
    with (tmp_path / "out" / "small.qcow2").open("r+b") as file:
        assert imagelock.hold(file.fileno())
        with pytest.raises(errors.TargetRefused, match="exists and is not overwritten"):
            restore(repo, manifest, order)
