"""Proof that what was restored is what the disks were at the point in time.

Two ways, because reading a point in time in full would spoil the figures of the measured backups:

- of an audited backup every byte is compared with a copy that nbdcopy made of the point in time while it stood;
- a measured backup holds, in all that the workload changes and over both disks, the state after one number of writes
  (see ``bench.replay``); the rest of the data disk is what it was in the beginning; the file system is clean, and its
  other file is as it was made.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench import replay
from bench.day import Day
from bench.replay import NotOneState, Region
from bench.scene import CHANGED_BYTES, DATA_OFFSET, STATIC_FILE, WORK_FILE, Scene
from tests.kit import compare, disks

#: The product names disks by their devices.
SYSTEM = disks.Disk(Path(), "qcow2", "system").device_id
DATA = disks.Disk(Path(), "raw", "data").device_id


def copying_hook(folder: Path) -> str:
    """A hook that copies the point in time with nbdcopy, while it stands."""
    copies = [
        f'nbdcopy "$HEADSTART_NBD_{name.upper().replace("-", "_")}" {folder / name}.point' for name in (SYSTEM, DATA)
    ]
    return "before-release=" + " && ".join(copies)


def check_audited(restored: Path, copies: Path) -> int:
    """The bytes compared, all of both disks. Raises ``NotOneState``."""
    total = 0
    for name in (SYSTEM, DATA):
        try:
            compare.assert_identical(restored / f"{name}.raw", copies / f"{name}.point")
        except AssertionError as error:
            raise NotOneState(str(error)) from error
        total += (restored / f"{name}.raw").stat().st_size
    return total


def check_measured(scene: Scene, restored: Path, day: Day) -> int:
    """The number of writes of the workload that the point in time holds. Raises ``NotOneState``."""
    system, data = restored / f"{SYSTEM}.raw", restored / f"{DATA}.raw"
    work = restored / WORK_FILE
    _check_file_system(system)
    _extract(system, WORK_FILE, work)
    regions = [Region(work, 0, CHANGED_BYTES), Region(data, DATA_OFFSET, CHANGED_BYTES)]
    writes = replay.verify(regions, day.seed, day.acknowledged)
    work.unlink()
    _check_static(scene, system, restored)
    outside = [
        (start, length)
        for start, length in compare.differences(scene.initial_data, data)
        if start < DATA_OFFSET or start + length > DATA_OFFSET + CHANGED_BYTES
    ]
    if outside or data.stat().st_size != scene.initial_data.stat().st_size:
        raise NotOneState(f"{data} differs where the guest never wrote: {outside[:3]}")
    return writes


def _check_static(scene: Scene, system: Path, folder: Path) -> None:
    copy = folder / STATIC_FILE
    _extract(system, STATIC_FILE, copy)
    if copy.stat().st_size != scene.static.stat().st_size or any(compare.differences(copy, scene.static)):
        raise NotOneState(f"/{STATIC_FILE} in {system} is not what it was")
    copy.unlink()


def _inside(image: Path) -> str:
    """The file system in the image, as the programs of e2fsprogs name it."""
    return f"{image}?offset={disks.PARTITION_OFFSET}"


def _check_file_system(image: Path) -> None:
    done = subprocess.run(["/sbin/e2fsck", "-fn", _inside(image)], capture_output=True, text=True)
    if done.returncode != 0:
        raise NotOneState(f"the file system in {image} is not clean: {done.stdout}")


def _extract(image: Path, name: str, target: Path) -> None:
    command = ["/sbin/debugfs", "-R", f'dump /{name} "{target}"', _inside(image)]
    subprocess.run(command, capture_output=True, check=True)
