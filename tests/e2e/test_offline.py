"""A VM that is off is backed up from its images: exactly, without a change in them, and without standing in its way."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.backup.report import BackupReport
from headstart.hypervisor.offline import OfflinePoint
from headstart.units import KIB, MIB
from tests.e2e import bare
from tests.e2e.rig import Rig, copy_point, disk_of
from tests.kit import compare, disks
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

START = 2 * MIB
PIECE = 256 * KIB


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    with bare.started(bare.pair(tmp_path)) as machine:
        yield machine


@pytest.fixture
def rig(tmp_path: Path, vm: Vm) -> Rig:
    return Rig(tmp_path / "rig", vm, qga=False)


def write_both(vm: Vm, number: int) -> None:
    for disk in ("one", "two"):
        bare.write(vm, disk, START + number * PIECE, PIECE, number + 1)


def stored(image: Path) -> list[Any]:
    """The bitmaps in an image, as ``qemu-img`` tells them."""
    command = ["qemu-img", "info", "-U", "--output=json", "-f", "qcow2", str(image)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found: list[Any] = told["format-specific"]["data"].get("bitmaps", [])
    return found


def offline_backup(vm: Vm, rig: Rig, options: Options | None = None) -> BackupReport:
    """Whose restored disks are the images, byte by byte; which it has not touched."""
    before = [disk.path.read_bytes() for disk in vm.disks]
    made = rig.backup(options)
    assert made.consistency == "offline" and made.window_seconds == 0 and any("was off" in note for note in made.notes)
    assert [disk.path.read_bytes() for disk in vm.disks] == before
    assert made.audit.mismatched_bytes == 0
    assert_is(rig, made, vm.disks)
    assert [path.name for path in rig.scratch.iterdir()] == ["spool"], "something is left"
    return made


def assert_is(rig: Rig, made: BackupReport, vm_disks: Sequence[disks.Disk]) -> None:
    restored = rig.restore(made.snapshot)
    for disk in vm_disks:
        compare.assert_identical(restored[disk.device_id], disk.path, "raw", disk.format)


def test_after_a_clean_end_only_what_changed_is_read(vm: Vm, rig: Rig) -> None:
    first = rig.backup()
    write_both(vm, 0)
    rig.precopy()
    write_both(vm, 1)
    vm.quit()
    made = offline_backup(vm, rig)
    one, two = disk_of(made, "one"), disk_of(made, "two")
    assert made.base == first.snapshot and not one.compared
    assert (one.changed_bytes, one.precopied_bytes, one.residue_bytes) == (2 * PIECE, PIECE, PIECE)
    # A raw image keeps no bitmaps.
    assert two.compared and two.changed_bytes == 2 * PIECE
    # The next night, and nobody started it.
    again = offline_backup(vm, rig)
    assert again.base == made.snapshot and not sum(disk.stored_bytes for disk in again.disks)
    vm.start()
    write_both(vm, 2)
    rig.precopy()
    write_both(vm, 3)
    exact = rig.exact_backup()
    assert exact.report.base == again.snapshot
    assert not exact.disk("one").compared and exact.disk("one").changed_bytes == 4 * PIECE
    assert exact.disk("two").compared
    for disk in ("one", "two"):
        assert not rig.exact_backup().disk(disk).compared
