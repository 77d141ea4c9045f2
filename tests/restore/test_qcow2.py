"""Our qcow2 files, as QEMU's own tools see them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import blocks
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.restore.qcow2 import CLUSTER, COUNTS, Layout, Qcow2File
from headstart.units import GIB, KIB, MIB, TIB
from tests.kit import disks


def check(image: Path) -> None:
    """Neither errors nor leaks."""
    done = subprocess.run(["qemu-img", "check", "--output=json", image], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["check-errors"] == 0
    assert report.get("leaks", 0) == report.get("corruptions", 0) == 0


def mapped(image: Path) -> list[tuple[int, int]]:
    """What qemu-img finds allocated."""
    done = subprocess.run(["qemu-img", "map", "--output=json", image], capture_output=True, text=True, check=True)
    return [(entry["start"], entry["length"]) for entry in json.loads(done.stdout) if entry["data"]]


def write_blocks(image: Path, size: int, allocated: Blocks, block_size: int = CLUSTER) -> None:
    with Qcow2File(image, size, allocated, block_size) as target:
        for block in allocated:
            length = blocks.length_of(block, block_size, size)
            target.write(block * block_size, [f"{block:08}".encode() * (length // 8)])
        target.finish()


@pytest.mark.parametrize("size", [512, 64 * KIB, 64 * KIB + 512, 512 * MIB, 512 * MIB + 512, 5 * GIB, 3 * TIB])
@pytest.mark.parametrize("where", ["nowhere", "ends", "everywhere"])
def test_qemu_finds_no_fault(tmp_path: Path, size: int, where: str) -> None:
    count = blocks.count_of(size, CLUSTER)
    allocated = {
        "nowhere": Blocks(),
        "ends": Blocks([0, count // 2, count - 1]),
        "everywhere": Blocks(range(min(count, 300))),
    }[where]
    write_blocks(tmp_path / "disk.qcow2", size, allocated)
    check(tmp_path / "disk.qcow2")
    assert disks.virtual_size(tmp_path / "disk.qcow2", "qcow2") == size
    found = blocks.of_extents((Extent(*pair) for pair in mapped(tmp_path / "disk.qcow2")), CLUSTER)
    assert found == allocated


@pytest.mark.parametrize("block_size", [4 * KIB, 64 * KIB, 4 * MIB])
def test_blocks_of_another_size_than_clusters(tmp_path: Path, block_size: int) -> None:
    size = 10 * MIB + 1536
    allocated = Blocks({0, 1, 2, size // block_size // 2, size // block_size})
    write_blocks(tmp_path / "disk.qcow2", size, allocated, block_size)
    check(tmp_path / "disk.qcow2")
    raw = disks.to_raw(tmp_path / "disk.qcow2", tmp_path / "raw", "qcow2").read_bytes()
    for block in range(blocks.count_of(size, block_size)):
        length = blocks.length_of(block, block_size, size)
        expected = f"{block:08}".encode() * (length // 8) if block in allocated else bytes(length)
        assert raw[block * block_size :][:length] == expected


def test_a_size_that_is_no_whole_number_of_sectors_is_rounded_up(tmp_path: Path) -> None:
    write_blocks(tmp_path / "disk.qcow2", CLUSTER + 8, Blocks([0, 1]))
    assert disks.virtual_size(tmp_path / "disk.qcow2", "qcow2") == CLUSTER + 512
    check(tmp_path / "disk.qcow2")


def test_a_guest_can_go_on_writing(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    write_blocks(image, 600 * MIB, Blocks([1, 8192 + 5]))
    commands = ["-c", "write -P 7 0 256k", "-c", "write -P 8 520M 1M", "-c", "read -P 7 0 256k"]
    subprocess.run(["qemu-io", *commands, image], check=True, capture_output=True)
    check(image)


@given(
    count=st.integers(1, 1 << 31),
    clusters=st.lists(st.tuples(st.integers(0, 1 << 31), st.integers(1, 1 << 27)), max_size=3),
)
def test_nothing_overlaps_and_all_is_counted(count: int, clusters: list[tuple[int, int]]) -> None:
    allocated = Blocks()
    for first, length in clusters:
        allocated.add_range(min(first, count), min(first + length, count))
    layout = Layout.of(count * CLUSTER, allocated)
    assert 1 + layout.refcount_table + layout.refcount_blocks == layout.l1_start
    assert layout.refcount_blocks * COUNTS >= layout.clusters
    assert layout.refcount_table * CLUSTER >= layout.refcount_blocks * 8
    assert layout.l1_table * CLUSTER * CLUSTER // 8 * CLUSTER // 8 >= count * CLUSTER
    if allocated:
        assert layout.offset(allocated.min() * CLUSTER) == layout.data_start * CLUSTER
        assert layout.offset(allocated.max() * CLUSTER + 5) == (layout.clusters - 1) * CLUSTER + 5
