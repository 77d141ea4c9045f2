"""Where the guest mounts its volumes, by the fstab of its system, read without mounting anything."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from headstart.volumes import fstab, signatures
from headstart.volumes.filesystem import Driver, Malformed, NotSupported
from headstart.volumes.filesystems import drivers
from headstart.volumes.fstab import Line
from headstart.volumes.volume import ReadOnlyBytes, Volume

#: What a Unix system may be on, and can be read.
_READABLE = (*signatures.EXT, "xfs")
#: Of which parts are mounted, each somewhere else.
_IN_PARTS = "btrfs"
#: That nothing else is mounted as, whereas ext4 mounts ext3.
_UNMISTAKABLE = (_IN_PARTS, "xfs")
_ENCRYPTED = "crypto_LUKS"
_ROOT = "/"
_Read = Callable[[str, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Mounts:
    """Mount points by the name of the volume. ``problem``: why none are known."""

    points: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problem: str = ""


def find(volumes: Sequence[Volume], read: _Read) -> Mounts:
    """Only what one system says, and of volumes that it names beyond doubt: what two volumes are called is neither."""
    systems = []
    for each in volumes:
        if each.content in _READABLE and each.segments is not None:
            text = _fstab(each, read)
            if text is not None:
                systems.append((each, text))
    if len(systems) != 1:
        which = "several volumes have" if systems else "no volume that can be read has"
        return Mounts(problem=f"{which} an /etc/fstab")
    root, text = systems[0]
    return told(text, root, volumes)


def told(text: str, root: Volume, volumes: Sequence[Volume]) -> Mounts:
    """By an fstab that lies on ``root``. No mount point of a btrfs is known where there may be others: what is mounted
    there by a name that tells nothing, as ``/dev/vdb1``, may be another part of it. A directory or an image file that
    is mounted is a part of the volume that it lies on."""
    points: dict[str, list[str]] = {root.name: [_ROOT]}
    mounted: dict[str, Volume | str | None] = {_ROOT: root}
    parts: list[Line] = []
    doubtful: set[str] = set()
    for line in fstab.parse(text):
        named = fstab.volumes_of(line.spec, volumes)
        point = _normal(line.point)
        if point == _ROOT:
            if is_another(line, root, volumes):
                return Mounts(problem=f"the /etc/fstab on volume {root.name} has another one at /")
            continue
        if line.is_path:
            mounted.setdefault(point, line.spec)
            parts.append(line)
            continue
        mounted[point] = named[0] if len(named) == 1 else None
        if len(named) == 1:
            points.setdefault(named[0].name, []).append(line.point)
        elif _IN_PARTS in line.type.split(","):
            doubtful |= {each.name for each in volumes if each.content == _IN_PARTS and fstab.may_mean(line.spec, each)}
    for line in parts:
        if (its := _holder(_normal(line.spec), mounted)) is not None:
            points.setdefault(its.name, []).append(line.point)
    return Mounts({name: tuple(dict.fromkeys(each)) for name, each in points.items() if name not in doubtful})


def _holder(path: str, mounted: Mapping[str, Volume | str | None]) -> Volume | None:
    """What a path lies on, by what is mounted where: a volume, another path, or what is not known."""
    point = max((each for each in mounted if posixpath.commonpath((each, path)) == each), key=len)
    its = mounted[point]
    if not isinstance(its, str):
        return its
    # What is mounted on itself lies on what is below.
    below = {each: what for each, what in mounted.items() if each != point}
    return _holder(_normal(f"{its}/{path[len(point) :]}"), below)


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path.lstrip('/')}")


def is_another(line: Line, root: Volume, volumes: Sequence[Volume]) -> bool:
    """Whether what an fstab has at ``/`` is surely not the volume that it lies on: then it is an old one, or a copy."""
    if line.type in _UNMISTAKABLE and line.type != root.content:
        return True
    if named := fstab.volumes_of(line.spec, volumes):
        return root not in named
    within = line.spec.startswith("/dev/mapper/") and any(each.content == _ENCRYPTED for each in volumes)
    return within or not fstab.may_mean(line.spec, root)


def _fstab(volume: Volume, read: _Read) -> str | None:
    """None: it is not the system's. What cannot be read is no system's either: nothing is left out for that."""
    try:
        driver = drivers.open_driver(volume.content, ReadOnlyBytes(volume, read))
        folder = _entry(driver, driver.root, "etc", "directory")
        file = None if folder is None else _entry(driver, folder, "fstab", "file")
        if file is None:
            return None
        size = driver.details(file).node.size
        return driver.read(file, 0, min(size, fstab.LONGEST)).decode("utf-8", "surrogateescape")
    except (Malformed, NotSupported, OSError, ValueError, LookupError):
        return None


def _entry(driver: Driver, folder: int, name: str, kind: str) -> int | None:
    found = (entry.node for entry in driver.entries(folder) if entry.name == name)
    return next((node.number for node in found if node.kind == kind), None)
