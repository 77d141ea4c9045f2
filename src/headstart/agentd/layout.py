"""The guest's block devices: disks, what lies on them, and what is mounted from there. Read from sysfs and procfs."""

import os
import re
from typing import Any, Dict, Iterable, List, Optional

from headstart.agentd import devicemapper, messages, mounts, nodes, segments
from headstart.agentd.devicemapper import SECTOR
from headstart.agentd.segments import Segment, Stripe
from headstart.agentd.work import Refused

_BLOCK = "/sys/class/block"
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
#: Serial numbers of disks: virtio-blk and NVMe, SCSI (SPC, vital product data page 80h: four bytes of header).
_SERIALS = (("serial", 0), ("device/serial", 0), ("device/vpd_pg80", 4))
#: A volume in more pieces than this is one of which cannot be told where it lies: all of it has to go into one frame.
_SEGMENTS = 1000
_WWNS = ("wwid", "device/wwid")


class Layout:
    """As it is at this moment."""

    def __init__(self) -> None:
        self._names = sorted(os.listdir(_BLOCK)) if os.path.isdir(_BLOCK) else []
        self._by_number = {_text("%s/%s/dev" % (_BLOCK, name)): name for name in self._names}

    def require(self, name: Any) -> str:
        if not isinstance(name, str) or name not in self._names:
            raise Refused(messages.WRONG, "there is no block device %r" % (name,))
        return name

    def table(self, name: str) -> List[Segment]:
        """A volume in terms of disks. Raises ``Refused`` where it cannot be told."""
        found = self._segments(name, 0)
        if found is None:
            raise Refused(messages.WRONG, "where %s lies on its disks cannot be told" % name)
        return found

    def describe(self) -> Dict[str, Any]:
        """The answer to ``map``."""
        return {
            "disks": [self._disk(name) for name in self._names if self._is_disk(name)],
            "volumes": [self._volume(name) for name in self._names if self._is_volume(name)],
            "mounts": list(mounts.described(self._by_number)),
        }

    def _is_volume(self, name: str) -> bool:
        return self._has(name, "partition") or self._has(name, "dm")

    def _is_disk(self, name: str) -> bool:
        return self._has(name, "device") and not self._has(name, "partition") and _size(name) > 0

    @staticmethod
    def _has(name: str, entry: str) -> bool:
        return os.path.exists("%s/%s/%s" % (_BLOCK, name, entry))

    def _disk(self, name: str) -> Dict[str, Any]:
        return {
            "name": name,
            "size": _size(name),
            "serial": _first(name, _SERIALS),
            "wwn": _first(name, [(entry, 0) for entry in _WWNS]),
            "pci": _pci(name),
        }

    def _volume(self, name: str) -> Dict[str, Any]:
        identity = _text("%s/%s/dm/uuid" % (_BLOCK, name))
        kind = "partition" if self._has(name, "partition") else "lvm" if identity.startswith("LVM-") else "dm"
        found = self._segments(name, 0)
        if found is not None and len(found) > _SEGMENTS:
            found = None
        return {
            "name": name,
            "size": _size(name),
            "kind": kind,
            "label": _text("%s/%s/dm/name" % (_BLOCK, name)),
            "segments": None
            if found is None
            else [[each.start, each.length, each.chunk, [list(stripe) for stripe in each.stripes]] for each in found],
        }

    def _segments(self, name: str, depth: int) -> Optional[List[Segment]]:
        """None: not known (encrypted, thin, mirrored, or too deep)."""
        if depth > 8:
            return None
        if self._has(name, "partition"):
            parent = os.path.basename(os.path.dirname(os.path.realpath("%s/%s" % (_BLOCK, name))))
            start = int(_text("%s/%s/start" % (_BLOCK, name)) or 0) * SECTOR
            direct: Optional[List[Segment]] = [Segment(0, _size(name), (Stripe(parent, start),))]
        elif self._has(name, "dm"):
            direct = self._mapped(name)
        else:
            return [Segment(0, _size(name), (Stripe(name, 0),))]
        if direct is None:
            return None
        lower: Dict[str, List[Segment]] = {}
        for parent in {stripe.disk for segment in direct for stripe in segment.stripes}:
            if self._is_volume(parent):
                below = self._segments(parent, depth + 1)
                if below is None:
                    return None
                lower[parent] = below
        return segments.compose(direct, lower)

    def _mapped(self, name: str) -> Optional[List[Segment]]:
        try:
            # Empty if it has gone in the meantime.
            major, minor = _text("%s/%s/dev" % (_BLOCK, name)).split(":")
            return mapped(devicemapper.table(int(major), int(minor)), self._by_number)
        except (OSError, ValueError):
            return None

    def path(self, name: str) -> str:
        """Raises ``OSError``."""
        return nodes.block(name)


def mapped(table: Iterable[devicemapper.Target], names: Dict[str, str]) -> Optional[List[Segment]]:
    """A device-mapper table; ``names`` of devices by number. None where it cannot be told in segments.

    Raises ``ValueError`` for what is no table."""
    found = [_target(target, names) for target in table]
    return None if None in found else [segment for segment in found if segment is not None]


def _target(target: devicemapper.Target, names: Dict[str, str]) -> Optional[Segment]:
    """``linear DEVICE START``; ``striped COUNT CHUNK (DEVICE START)...``, in sectors (Linux,
    Documentation/admin-guide/device-mapper/)."""
    if target.kind == "linear":
        pairs, chunk = target.arguments[:2], 0
    elif target.kind == "striped" and len(target.arguments) > 2:
        pairs, chunk = target.arguments[2:], int(target.arguments[1]) * SECTOR
    else:
        return None
    stripes = [Stripe(names.get(device, ""), int(start) * SECTOR) for device, start in zip(pairs[::2], pairs[1::2])]
    if not stripes or not all(stripe.disk for stripe in stripes):
        return None
    if len(stripes) == 1:
        chunk = 0
    elif chunk <= 0:
        raise ValueError("stripes of nothing")
    return Segment(target.start, target.length, tuple(stripes), chunk)


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(4096).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _size(name: str) -> int:
    return int(_text("%s/%s/size" % (_BLOCK, name)) or 0) * SECTOR


def _first(name: str, entries: "Any") -> str:
    for entry, skipped in entries:
        path = "%s/%s/%s" % (_BLOCK, name, entry)
        try:
            with open(path, "rb") as file:
                found = file.read(256)[skipped:].decode("ascii", "replace").strip("\0 \n")
        except OSError:
            continue
        if found:
            return found
    return ""


def _pci(name: str) -> str:
    """The PCI address of the function that the disk hangs on."""
    parts = os.path.realpath("%s/%s" % (_BLOCK, name)).split("/")
    return next((part for part in reversed(parts) if _PCI.match(part)), "")
