"""Two installations on one VM: each has its bitmaps and its points, and tells whom it waits for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.hypervisor.qemu import obstacles
from headstart.units import KIB, MIB
from tests.e2e import bare
from tests.e2e.rig import Rig
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm


@pytest.fixture
def second_monitor() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        yield Path(folder, "qmp")


@pytest.fixture
def vm(tmp_path: Path, second_monitor: Path) -> Iterator[Vm]:
    with bare.started(bare.pair(tmp_path), "-qmp", f"unix:{second_monitor},server=on,wait=off") as machine:
        yield machine


@pytest.fixture
def one(tmp_path: Path, vm: Vm) -> Rig:
    return Rig(tmp_path / "one", vm, qga=False)


@pytest.fixture
def two(tmp_path: Path, vm: Vm, second_monitor: Path) -> Rig:
    """Another state, another repository, a monitor of its own."""
    made = Rig(tmp_path / "two", vm, qga=False)
    (made.folder / "qmp").unlink()
    (made.folder / "qmp").symlink_to(second_monitor)
    return made


def write(vm: Vm, number: int) -> None:
    for disk in ("one", "two"):
        bare.write(vm, disk, 2 * MIB + number * 256 * KIB, 256 * KIB, number + 1)


def test_each_counts_from_its_own_last_backup(vm: Vm, one: Rig, two: Rig) -> None:
    one.backup()
    write(vm, 0)
    two.backup()
    theirs = one.bitmaps()
    for number in (1, 2):
        write(vm, number)
        two.precopy()
    write(vm, 3)
    exact = two.exact_backup()
    assert {disk.changed_bytes for disk in exact.report.disks} == {3 * 256 * KIB}
    assert [[each["name"] for each in found] for found in one.bitmaps().values()] == [
        [each["name"] for each in found] for found in theirs.values()
    ]
    exact = one.exact_backup()
    assert {disk.changed_bytes for disk in exact.report.disks} == {4 * 256 * KIB}
    one.release()
    assert not any(one.bitmaps().values())
    write(vm, 4)
    assert {disk.changed_bytes for disk in two.exact_backup().report.disks} == {256 * KIB}


def test_who_comes_while_a_point_stands_is_told_whose(
    vm: Vm, one: Rig, two: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 0.5)
    one.backup()
    two.backup()
    write(vm, 0)
    said: list[str] = []

    def meanwhile(_: Mapping[str, str]) -> None:
        for verb in (two.precopy, lambda: two.backup(Options(freeze=False))):
            with pytest.raises(errors.Busy) as caught:
                verb()
            said.append(str(caught.value))

    one.exact_backup(after_thaw=meanwhile)
    assert all(f"of another Headstart, installation {one.installation}" in each for each in said), said
    exact = two.exact_backup()
    assert {disk.changed_bytes for disk in exact.report.disks} == {256 * KIB}


def test_one_monitor_for_both(vm: Vm, one: Rig, two: Rig) -> None:
    two.follow(vm)
    said: list[str] = []

    def meanwhile(_: Mapping[str, str]) -> None:
        with pytest.raises(errors.Unreachable) as caught:
            two.precopy()
        said.append(str(caught.value))

    one.exact_backup(before_freeze=meanwhile)
    assert f"somebody else is connected (process {os.getpid()} (" in said[0]
    two.exact_backup()
