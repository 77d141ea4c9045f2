"""Something lies: a bitmap, or what the draft is said to hold. It is found out while the point in time stands, and
what is published is exact all the same."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.backup.complete import Options
from headstart.units import KIB, MIB
from tests.e2e import bare
from tests.e2e.rig import Rig, disk_of
from tests.kit import compare
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

START = 2 * MIB
LENGTH = 512 * KIB


@pytest.fixture(params=["filters", "jobs"])
def vm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vm]:
    one, two = bare.pair(tmp_path)
    with bare.started((dataclasses.replace(one, iothread=request.param == "jobs"), two)) as machine:
        yield machine


@pytest.fixture
def rig(tmp_path: Path, vm: Vm) -> Rig:
    made = Rig(tmp_path / "rig", vm, qga=False)
    made.backup()
    return made


def write_both(vm: Vm, pattern: int, start: int = START) -> None:
    for disk in ("one", "two"):
        bare.write(vm, disk, start, LENGTH, pattern)


def assert_exact(vm: Vm, rig: Rig, snapshot: str) -> None:
    """Nothing has been written since: the images are what was backed up."""
    restored = rig.restore(snapshot)
    vm.quit()
    for disk in vm.disks:
        compare.assert_identical(restored[disk.device_id], disk.path, "raw", disk.format)


def test_false_blocks_in_the_draft(vm: Vm, rig: Rig) -> None:
    """As a guest could deliver them: none of what the draft has is used."""
    write_both(vm, 1)
    write_both(vm, 2, START + LENGTH)
    rig.precopy()
    with sqlite3.connect(rig.state / "state.sqlite3") as database:
        changed = database.execute(
            "UPDATE copied SET chunk = (SELECT chunk FROM copied WHERE disk = 'dev-two' AND block = ?)"
            " WHERE disk = 'dev-two' AND block = ?",
            ((START + LENGTH) // (64 * KIB), START // (64 * KIB)),
        ).rowcount
    assert changed == 1
    made = rig.backup()
    assert any("false blocks in the draft" in note for note in made.notes), made
    assert disk_of(made, "two").precopied_bytes == 0 or disk_of(made, "two").residue_bytes == 0
    assert_exact(vm, rig, made.snapshot)


def test_a_bitmap_that_was_cleared(vm: Vm, rig: Rig) -> None:
    """By somebody who took it for his own: the disk is read whole, and the user is told why."""
    write_both(vm, 1)
    for node, bitmaps in rig.bitmaps().items():
        for bitmap in bitmaps:
            vm.qmp("block-dirty-bitmap-clear", node=node, name=bitmap["name"])
    write_both(vm, 2, START + LENGTH)
    made = rig.backup()
    for name in ("one", "two"):
        found = disk_of(made, name)
        assert found.compared and "does not report" in found.reason, made
    assert_exact(vm, rig, made.snapshot)


def test_a_base_bitmap_that_was_cleared(vm: Vm, rig: Rig) -> None:
    """The draft has blocks that it lacks: no sample is needed to see that."""
    write_both(vm, 1)
    rig.precopy()
    for node, bitmaps in rig.bitmaps().items():
        for bitmap in bitmaps:
            if "-base-" in bitmap["name"]:
                vm.qmp("block-dirty-bitmap-clear", node=node, name=bitmap["name"])
    made = rig.backup(Options(audit=0))
    assert all(disk.compared for disk in made.disks), made
    assert_exact(vm, rig, made.snapshot)


def test_a_bitmap_that_was_disabled(vm: Vm, rig: Rig) -> None:
    write_both(vm, 1)
    for node, bitmaps in rig.bitmaps().items():
        for bitmap in bitmaps:
            vm.qmp("block-dirty-bitmap-disable", node=node, name=bitmap["name"])
    write_both(vm, 2, START + LENGTH)
    made = rig.backup(Options(audit=0))
    assert all("disabled by somebody" in disk.reason for disk in made.disks), made
    assert_exact(vm, rig, made.snapshot)
