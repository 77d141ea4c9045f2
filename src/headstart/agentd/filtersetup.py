"""The command ``headstart-agentd filter``: for the guest's owner, and for what sets disks up at boot."""

import fcntl
import os
import re
import secrets
import struct
import sys
from typing import Any, List

from headstart.agentd import changes, diskread, filters, ledger
from headstart.agentd.devicemapper import SECTOR
from headstart.agentd.filters import GRAIN, Filter, Place, Wrong

USAGE = """\
usage: headstart-agentd filter add NAME DISK COMPANION    record what is written to DISK, from /dev/mapper/NAME on
       headstart-agentd filter prepare NAME DISK COMPANION    the same from the next boot on, for a disk in use
       headstart-agentd filter up                         at boot, before anything is mounted
       headstart-agentd filter script                     the same for an initramfs: commands of dmsetup's
       headstart-agentd filter list
       headstart-agentd filter remove NAME                use DISK itself again

COMPANION is a device that is empty: a partition or logical volume of 64 MiB, and some 10 % of what DISK holds."""
_NUMBER = "$(dmsetup info -c --noheadings --separator : -o major,minor %s)"
#: As it goes into a configuration and into commands.
_PATH = re.compile(r"/[A-Za-z0-9/_.:+@=,-]+\Z")
#: Bytes of metadata per recorded block, with room for the copies that the kernel makes.
_PER_BLOCK = 16
_LEAST_METADATA = 8 << 20
_LEAST_COW = 4 << 20


def main(words: List[str]) -> int:
    try:
        return _run(words)
    except (Wrong, OSError) as error:
        print("headstart-agentd: %s" % error, file=sys.stderr)
        return 1


def _run(words: List[str]) -> int:
    if len(words) == 4 and words[0] in ("add", "prepare"):
        add(Place(*words[1:]), later=words[0] == "prepare")
    elif words == ["up"]:
        return up()
    elif words == ["script"]:
        print("\n".join(line for place in filters.configured() for line in script(Filter(place))))
    elif words == ["list"]:
        for place in filters.configured():
            print("%s  %s" % (place.line(), filters.missing(place) or "stands"))
    elif len(words) == 2 and words[0] == "remove":
        remove(words[1])
    else:
        print(USAGE, file=sys.stderr)
        return 2
    return 0


def add(place: Place, later: bool = False) -> None:
    """``later``: the disk is in use, and stays as it is until the next boot.

    Raises ``Wrong``, ``OSError``; then nothing has changed."""
    known = filters.configured()
    if not filters.NAME.match(place.name):
        raise Wrong("%r cannot be the name of a filter: letters, digits, '.', '_' and '-'" % place.name)
    if not _PATH.match(place.origin) or not _PATH.match(place.companion):
        raise Wrong("devices are named by whole paths of letters, digits and '/_.:+@=,-'")
    if any(each.name == place.name for each in known):
        raise Wrong("there is a filter %s already" % place.name)
    origin, companion = filters.number(place.origin), filters.number(place.companion)
    if origin == companion:
        raise Wrong("a disk cannot be its own companion")
    # A record that nobody can read is of no use, and costs all the same.
    changes.program()
    if not later:
        _require_unused(place.origin)
    _require_unused(place.companion)
    size = filters.size(origin)
    metadata = _LEAST_METADATA + -(-size // GRAIN) * _PER_BLOCK
    metadata = -(-metadata // (1 << 20)) * (1 << 20)
    if filters.size(companion) < ledger.RESERVED + metadata + _LEAST_COW:
        least = (ledger.RESERVED + metadata + _LEAST_COW) >> 20
        raise Wrong(
            "%s is too small: the companion of %s needs %d MiB at least" % (place.companion, place.origin, least)
        )
    _require_empty(place.companion)
    _clear(place.companion, ledger.RESERVED)
    told: Any = {"name": place.name, "origin": place.origin, "id": secrets.token_hex(8), "size": size}
    told.update(metadata=metadata, identity=filters.identity(origin), seen=0, marks={}, met={}, boot="", beside=0)
    ledger.Ledger(place.companion, dict(told, reason="")).write()
    try:
        if not later:
            Filter(place).up()
        _configure([*known, place])
    except BaseException:
        Filter(place).down()
        _clear(place.companion, 0)
        raise
    print(
        "/dev/mapper/%s is %s from %s on: mount that, also in /etc/fstab."
        % (place.name, place.origin, "the next boot" if later else "now")
    )


def up() -> int:
    """All that are configured, whatever becomes of one of them."""
    return max([0, *(_up(place) for place in filters.configured())])


def _up(place: Place) -> int:
    try:
        Filter(place).up()
    except (Wrong, OSError) as error:
        print("headstart-agentd: %s: %s" % (place.name, error), file=sys.stderr)
        return 1
    return 0


def script(found: Filter) -> List[str]:
    """What sets a filter up where there is no Python, by the paths of the configuration."""
    places = {filters.dotted(found.origin): found.place.origin, filters.dotted(found.companion): found.place.companion}
    lines = []
    for role in reversed(filters.STANDING):
        if role == filters.LIVE:
            # By number: who makes nodes, and when, differs.
            parts = [_NUMBER % found.title(each) for each in (filters.META, filters.BASE)]
            table = " ".join(["era", *parts, str(GRAIN // SECTOR)])
        else:
            target = found.table(role)[0]
            table = " ".join([target.kind, *(places.get(word, word) for word in target.arguments)])
        line = "0 %d %s" % (
            (int(found.ledger.told["metadata"]) if role == filters.META else found.size) // SECTOR,
            table,
        )
        lines.append(
            'dmsetup create %s --uuid %s --noudevsync --table "%s"' % (found.title(role), found.uuid(role), line)
        )
    # Discards are not recorded, see ``Filter.compare_discards``.
    forbid = "echo 0 >/sys/dev/block/%s/queue/discard_max_bytes" % (_NUMBER % found.name)
    return [*lines, forbid, "dmsetup mknodes %s" % found.name]


def remove(name: str) -> None:
    known = filters.configured()
    place = next((each for each in known if each.name == name), None)
    if place is None:
        raise Wrong("there is no filter %s" % name)
    Filter(place).down()
    _configure([each for each in known if each.name != name])
    _clear(place.companion, 0)


def _configure(places: List[Place]) -> None:
    os.makedirs(os.path.dirname(filters.CONFIGURATION), exist_ok=True)
    with open(filters.CONFIGURATION + ".new", "w") as file:
        file.write("".join(place.line() + "\n" for place in places))
        file.flush()
        os.fsync(file.fileno())
    os.rename(filters.CONFIGURATION + ".new", filters.CONFIGURATION)


def _require_unused(path: str) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        raise Wrong("%s cannot be had: %s. Is it mounted, or part of something?" % (path, error.strerror)) from None


def _require_empty(path: str) -> None:
    with diskread.DiskReader(path) as reader:
        for start in range(0, ledger.RESERVED, diskread.LONGEST):
            if any(reader.read(start, diskread.LONGEST)):
                raise Wrong(
                    "%s is not empty. If nothing on it is needed: dd if=/dev/zero of=%s bs=1M count=1" % (path, path)
                )


def _clear(path: str, start: int) -> None:
    """From ``start``, or all that is ours: a block of zeroes at the beginning of metadata has the kernel make new
    ones."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(start)
        file.write(bytes(4096 if start else ledger.RESERVED))
        os.fsync(file.fileno())
        fcntl.ioctl(file, _FLUSH, struct.pack("=i", 0))


#: BLKFLSBUF: nothing that was read before is shown later.
_FLUSH = 0x1261
