"""Where a guest mounts its volumes, as its ``/etc/fstab`` says (fstab(5)); pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headstart.volumes.volume import Volume

#: More of the file is not looked at.
LONGEST = 1 << 20
#: Names that are on the disks, and not only the guest's.
_TELLING = re.compile(r"((PART)?(UUID|LABEL)=|/dev/disk/by-(part)?(uuid|label)/)")
_NAMED = re.compile(r"[A-Z]+=")
#: Of discs and the like, which are no part of a system, or without files.
_APART = re.compile(r"/dev/(sr|cdrom|cdrw|dvd|fd)[0-9]*")
_APART_TYPES = {"swap", "iso9660", "udf"}
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Line:
    spec: str
    point: str
    type: str

    @property
    def is_path(self) -> bool:
        """Whether it mounts a directory (``bind``) or a file of the guest's, and no device or share."""
        return self.spec.startswith("/") and not self.spec.startswith(("//", "/dev/"))

    @property
    def is_on_disk(self) -> bool:
        """Whether it mounts what should be a volume, by whatever name."""
        named = self.spec.startswith("/dev/") or _NAMED.match(self.spec)
        return bool(named) and not _APART.fullmatch(self.spec) and not _APART_TYPES & set(self.type.split(","))


def parse(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3 and not fields[0].startswith("#") and fields[1].startswith("/"):
            yield Line(_unescaped(fields[0].strip('"')), _unescaped(fields[1]), fields[2])


def volumes_of(spec: str, volumes: Iterable[Volume]) -> list[Volume]:
    """All that it may mean: copies of a volume have its names. None where it cannot be told: a name as ``/dev/sdb1``
    depends on how the guest was started."""
    return [each for each in volumes if _means(spec, each)]


def may_mean(spec: str, volume: Volume) -> bool:
    """Unless the name tells that it is another one."""
    return _means(spec, volume) or not _TELLING.match(spec)


def _means(spec: str, volume: Volume) -> bool:
    key, equals, value = spec.partition("=")
    value = value.strip('"')
    told = {
        "UUID": volume.uuid,
        "LABEL": volume.label,
        "PARTUUID": volume.partition_uuid,
        "PARTLABEL": volume.partition_label,
    }
    if equals and told.get(key) and told[key].lower() == value.lower():
        return True
    if spec in (f"/dev/disk/by-{name.lower()}/{its}" for name, its in told.items() if its):
        return True
    return not equals and spec in _mapped(volume.name)


def _mapped(name: str) -> tuple[str, ...]:
    """The paths of a logical volume."""
    group, slash, volume = name.partition("/")
    if not slash:
        return ()
    return f"/dev/{name}", f"/dev/mapper/{group.replace('-', '--')}-{volume.replace('-', '--')}"


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
