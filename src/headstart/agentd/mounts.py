"""What is mounted from block devices (proc(5), /proc/self/mountinfo)."""

import os
import re
import stat
from typing import Dict, Iterator, List, NamedTuple, Optional

_TABLE = "/proc/self/mountinfo"
#: Mounts that the host is told: of one device in any case, and in all. They have to go into one frame.
_EACH = 16
_TOLD = 500
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """``number`` is ``major:minor`` of the device."""

    number: str
    point: str
    kind: str
    writable: bool


def mounted() -> List[Mount]:
    """In the order in which they were mounted; only those that stand on a block device."""
    with open(_TABLE, "rb") as file:
        return parse(file.read().decode("utf-8", "surrogateescape"))


def parse(table: str) -> List[Mount]:
    """A line that is none is left out: what is told of the others counts. Names may hold all that other programs take
    for the end of a line: the kernel escapes blanks, tabs, newlines and backslashes, and nothing else."""
    found = (_parse(line.split(" ")) for line in table.split("\n"))
    return [mount for mount in found if mount is not None and mount.number]


def _parse(fields: List[str]) -> Optional[Mount]:
    try:
        dash = fields.index("-", 6)
        kind, source, options = fields[dash + 1 : dash + 4]
    except ValueError:
        return None
    number = fields[2]
    if number.startswith("0:"):
        # btrfs and others have no device of their own; their source has.
        number = _number(_unescaped(source))
    return Mount(number, _unescaped(fields[4]), kind, "ro" not in options.split(","))


def _number(source: str) -> str:
    try:
        found = os.stat(source)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISBLK(found.st_mode):
        return ""
    return "%d:%d" % (os.major(found.st_rdev), os.minor(found.st_rdev))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def described(names: Dict[str, str]) -> Iterator[Dict[str, str]]:
    """For ``map``; ``names`` of devices by number. Not all of them where containers mount parts of the same file system
    a thousand times: the first few of each device and the first of all."""
    counts: Dict[str, int] = {}
    total = 0
    for mount in mounted():
        count = counts.get(mount.number, 0)
        if mount.number in names and (count < _EACH or total < _TOLD):
            counts[mount.number] = count + 1
            total += 1
            yield {"device": names[mount.number], "point": mount.point, "type": mount.kind}
