"""The block devices that carry image files, and how busy they are."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart.load.disk import Activity

#: Linux, Documentation/block/stat.rst: sectors are of 512 bytes, times in milliseconds.
_SECTOR = 512
_STAT = {"read_bytes": 2, "reading": 3, "written_bytes": 6, "writing": 7, "busy": 9}
_FLUSHING = 16


@dataclass(frozen=True, slots=True)
class Found:
    """Counters since the host was started, by the kernel's name of the device; and paths that are on none."""

    devices: Mapping[str, Activity]
    without: tuple[Path, ...]


def activities(paths: Iterable[Path]) -> Found:
    """Of each device once, however many images are on it."""
    folders = {path: _device(path) for path in paths}
    devices = {}
    for folder in {each for each in folders.values() if each is not None}:
        told = _activity(folder)
        if told is not None:
            devices[folder.name] = told
    without = [path for path, folder in folders.items() if folder is None or folder.name not in devices]
    return Found(devices, tuple(without))


def _device(path: Path) -> Path | None:
    """Where sysfs has the disk that carries a file, or that a block device is; of a partition the whole one, because
    its neighbours keep that busy too. None: no block device (tmpfs, overlay, a network)."""
    try:
        facts = path.stat()
    except OSError:
        return None
    number = facts.st_rdev if stat.S_ISBLK(facts.st_mode) else facts.st_dev
    folder = _sysfs(number) or _sysfs(_source(number))
    return folder.parent if folder is not None and (folder / "partition").exists() else folder


def _sysfs(number: int) -> Path | None:
    folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    return folder.resolve() if folder.exists() else None


def _source(number: int) -> int:
    """The device of a file system that has a number of its own, as btrfs has; 0 if it is on none."""
    wanted = f"{os.major(number)}:{os.minor(number)}"
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount, _, rest = line.partition(" - ")
            if mount.split()[2] == wanted and rest.split()[1].startswith("/"):
                return Path(rest.split()[1]).stat().st_rdev
    return 0


def _activity(folder: Path) -> Activity | None:
    try:
        fields = [int(field) for field in (folder / "stat").read_text().split()]
        told = {name: fields[place] for name, place in _STAT.items()}
    except (OSError, ValueError, IndexError):
        return None
    return Activity(
        busy=told["busy"] / 1e3,
        reading=told["reading"] / 1e3,
        writing=told["writing"] / 1e3,
        flushing=fields[_FLUSHING] / 1e3 if len(fields) > _FLUSHING else None,
        read_bytes=told["read_bytes"] * _SECTOR,
        written_bytes=told["written_bytes"] * _SECTOR,
    )
