"""Any bytes of a stored disk: at odd places, in holes, beside damage, from many threads."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.restore.view import DiskView, Piece
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.restore import stored

BLOCK = stored.BLOCK
DISK = stored.content(1, 0, 0, 2, 3, 3, 0, 4, *range(10, 40), tail=1000)


def view_of(data: bytes, cache: int = 1 << 20) -> DiskView:
    repo = stores.new_repository()
    return DiskView(repo, stored.store_snapshot(repo, {"disk0": data}).disks[0], cache)


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_bytes_at_any_place(cache: int) -> None:
    view = view_of(DISK, cache)
    chosen = random.Random(1)
    for _ in range(200):
        start = chosen.randrange(len(DISK))
        length = chosen.randrange(min(5 * BLOCK, len(DISK) - start) + 1)
        assert view.read(start, length) == DISK[start : start + length]


def test_many_threads_read_the_same() -> None:
    view = view_of(DISK, cache=4 * BLOCK)
    starts = [random.Random(2).randrange(len(DISK)) for _ in range(200)]
    with ThreadPoolExecutor(8) as threads:
        for start, found in zip(starts, threads.map(lambda start: view.read(start, 1), starts), strict=True):
            assert found == DISK[start : start + 1]


def test_pieces_tell_data_from_holes() -> None:
    view = view_of(DISK)
    assert list(view.pieces(BLOCK // 2, 4 * BLOCK)) == [
        Piece(Extent(BLOCK // 2, BLOCK // 2), True),
        Piece(Extent(BLOCK, 2 * BLOCK), False),
        Piece(Extent(3 * BLOCK, 3 * BLOCK // 2), True),
    ]
    assert sum(piece.extent.length for piece in view.pieces(0, len(DISK))) == len(DISK)


def test_damage_costs_its_range_alone(tmp_path: Path) -> None:
    with stores.new_repository(LocalStore(tmp_path)) as repo:
        disk = stored.store_snapshot(repo, {"disk0": DISK}).disks[0]
        stored.damage_packs(tmp_path)
        view = DiskView(repo, disk)
        damaged = []
        for start in range(0, len(DISK), BLOCK):
            try:
                assert view.read(start, min(BLOCK, len(DISK) - start)) == DISK[start : start + BLOCK]
            except errors.Damaged as error:
                damaged.append((error.facts["start"], error.facts["disk"]))
        assert damaged, "nothing was damaged: the test shows nothing"
        assert all(name == "disk0" for _, name in damaged)
        assert len(damaged) <= 8
