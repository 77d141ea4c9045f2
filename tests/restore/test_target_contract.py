"""What every target promises, over all of them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.restore.device import BlockDevice
from headstart.restore.qcow2 import Qcow2File
from headstart.restore.qemufile import QemuFile
from headstart.restore.raw import RawFile
from headstart.restore.target import Target
from tests.restore import stored

BLOCK = stored.BLOCK
SIZE = 9 * BLOCK + 5 * 512
#: Blocks that are written; 9 is the short one.
DATA = Blocks([0, 3, 4, 7, 9])
EXPECTED = stored.content(1, 0, 0, 4, 5, 0, 0, 8, 0, tail=5 * 512)

Make = Callable[[], Target]


@pytest.fixture(params=["raw", "qcow2", "vmdk", "vhdx", "device"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes the same target again and again; on a device there is old content."""
    if request.param == "raw":
        yield lambda: RawFile(tmp_path / "disk.raw", SIZE)
    elif request.param == "qcow2":
        yield lambda: Qcow2File(tmp_path / "disk.qcow2", SIZE, DATA, BLOCK)
    elif request.param in ("vmdk", "vhdx"):
        yield lambda: QemuFile(tmp_path / f"disk.{request.param}", SIZE, request.param)
    else:
        with stored.loop_device(tmp_path / "backing", 12 * BLOCK) as device:
            yield lambda: BlockDevice(device, SIZE)


def fill(target: Target) -> None:
    holes = [Extent(BLOCK, 2 * BLOCK), Extent(5 * BLOCK, 2 * BLOCK), Extent(8 * BLOCK, BLOCK)]
    if target.size > SIZE:
        holes.append(Extent(SIZE, target.size - SIZE))
    for hole in holes:
        target.zero(hole)
    target.write(9 * BLOCK, [EXPECTED[9 * BLOCK :]])
    target.write(3 * BLOCK, [EXPECTED[3 * BLOCK : 4 * BLOCK], EXPECTED[4 * BLOCK : 5 * BLOCK]])
    target.write(7 * BLOCK, [EXPECTED[7 * BLOCK : 8 * BLOCK]])
    target.write(0, [EXPECTED[:BLOCK]])


def content_of(place: Path) -> bytes:
    image_format = place.suffix[1:]
    if image_format in ("qcow2", "vmdk", "vhdx"):
        raw = place.with_name("content")
        subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", place, raw], check=True)
        return raw.read_bytes()
    with place.open("rb") as file:
        return file.read()


def test_it_reads_as_it_was_written(make: Make) -> None:
    with make() as target:
        fill(target)
        target.finish()
        place, size = target.place, target.size
    assert content_of(place) == EXPECTED.ljust(size, b"\0")


def test_it_may_be_written_from_several_threads(make: Make) -> None:
    with make() as target:
        target.zero(Extent(BLOCK, 2 * BLOCK))
        threads = [
            threading.Thread(target=target.write, args=(block * BLOCK, [EXPECTED[block * BLOCK : (block + 1) * BLOCK]]))
            for block in DATA
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        target.finish()
        place = target.place
    found = content_of(place)
    assert all(
        found[block * BLOCK : (block + 1) * BLOCK][: SIZE - block * BLOCK]
        == EXPECTED[block * BLOCK : (block + 1) * BLOCK]
        for block in DATA
    )


def test_what_is_not_finished_has_no_name(make: Make) -> None:
    with pytest.raises(RuntimeError, match="in the middle"), make() as target:
        fill(target)
        place = target.place
        raise RuntimeError("in the middle")
    if not place.is_block_device():
        assert list(place.parent.iterdir()) == []


def test_a_place_is_claimed_once(make: Make) -> None:
    with make() as target:
        with pytest.raises(errors.TargetRefused, match=r"exists|in use") as refused:
            make()
        fill(target)
        target.finish()
        place = target.place
    assert str(place) in str(refused.value)
    assert content_of(place)[:SIZE] == EXPECTED


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_its_descriptor_is_closed(make: Make) -> None:
    before = open_files()
    with make() as target:
        fill(target)
        with pytest.raises(errors.TargetRefused):
            make()
    assert open_files() == before


def test_a_finished_file_is_not_overwritten(make: Make) -> None:
    with make() as target:
        fill(target)
        target.finish()
        place = target.place
    if place.is_block_device():
        return
    with pytest.raises(errors.TargetRefused, match="exists and is not overwritten"):
        make()
    assert content_of(place) == EXPECTED
