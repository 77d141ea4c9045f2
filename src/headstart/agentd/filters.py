"""Filters: disks under a device-mapper target ``era``, which records what is written to them.

::

    live       era                what the guest uses: /dev/mapper/NAME
    base       snapshot-origin    hands through; has old content saved while a point in time stands
    origin                        the disk, partition or logical volume
    meta, cow  linear             parts of the companion, see ``ledger``
    point      snapshot           the disk as it was, while a point in time stands
"""

import json
import os
import platform
import re
import shlex
from typing import Any, Dict, List, Optional, Tuple

from headstart.agentd import devicemapper, dmdevice, ledger
from headstart.agentd.devicemapper import SECTOR, Target
from headstart.agentd.ledger import Ledger

CONFIGURATION = "/etc/headstart/filters"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}\Z")
#: The grain in which changes are recorded: that of the repository.
GRAIN = 64 << 10
LIVE, BASE, META, COW, POINT = "live", "base", "meta", "cow", "point"
#: From the top to the bottom.
STANDING = (LIVE, BASE, META)
#: Linux 5.12 was released in April 2021, and stable kernels with the same corrections in March.
_MENDED, _MENDED_SINCE = (5, 12), 2022
_NUMBER = "/sys/dev/block/%d:%d/%s"
_IDENTITIES = ("dm/uuid", "serial", "wwid", "device/serial", "device/wwid", "partition")


class Wrong(Exception):
    """For the guest's owner: why a filter cannot be used, and what to do."""


class Place:
    """A line of the configuration."""

    def __init__(self, name: str, origin: str, companion: str) -> None:
        self.name = name
        self.origin = origin
        self.companion = companion

    def line(self) -> str:
        return " ".join(shlex.quote(word) for word in (self.name, self.origin, self.companion))


def configured() -> List[Place]:
    """Raises ``Wrong``."""
    try:
        with open(CONFIGURATION) as file:
            lines = [shlex.split(line, comments=True) for line in file]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise Wrong("%s cannot be read: %s" % (CONFIGURATION, error)) from None
    words = [line for line in lines if line]
    if not all(len(line) == 3 and NAME.match(line[0]) for line in words):
        raise Wrong("%s: each line has a name, a disk and its companion" % CONFIGURATION)
    return [Place(*line) for line in words]


class Filter:
    """One that stands, or could."""

    def __init__(self, place: Place) -> None:
        """Raises ``Wrong`` where it is not what its ledger says."""
        self.place = place
        self.name = place.name
        try:
            self.ledger: Ledger = ledger.read(place.companion)
        except ledger.Unreadable as error:
            raise Wrong(str(error)) from None
        told = self.ledger.told
        self.origin = number(place.origin)
        self.companion = number(place.companion)
        self.size = size(self.origin)
        if (told["name"], told["size"]) != (place.name, self.size) or told["identity"] != identity(self.origin):
            raise Wrong(
                "%s was made the companion of %s (%s, %d bytes), and %s is not that"
                % (place.companion, told["name"], told["origin"], told["size"], place.origin)
            )

    def uuid(self, role: str) -> str:
        return "HEADSTART-%s-%s" % (self.ledger.told["id"], role)

    def device(self, role: str) -> Optional[str]:
        """The kernel's name."""
        return dmdevice.find(self.uuid(role))

    def title(self, role: str) -> str:
        return self.name if role == LIVE else "headstart-%s-%s" % (self.name, role)

    @property
    def cow_bytes(self) -> int:
        return size(self.companion) - ledger.RESERVED - int(self.ledger.told["metadata"])

    def table(self, role: str) -> List[Target]:
        metadata = int(self.ledger.told["metadata"])
        if role == META:
            words = ["linear", dotted(self.companion), str(ledger.RESERVED // SECTOR)]
            return [_target(metadata, words)]
        if role == COW:
            words = ["linear", dotted(self.companion), str((ledger.RESERVED + metadata) // SECTOR)]
            return [_target(self.cow_bytes // SECTOR * SECTOR, words)]
        if role == BASE:
            return [_target(self.size, ["snapshot-origin", dotted(self.origin)])]
        if role == LIVE:
            parts = [dotted(dmdevice.number(self.uuid(each))) for each in (META, BASE)]
            return [_target(self.size, ["era", *parts, str(GRAIN // SECTOR)])]
        cow = dotted(dmdevice.number(self.uuid(COW)))
        # Not persistent: what a reboot leaves of a point in time is of no use.
        return [_target(self.size, ["snapshot", dotted(self.origin), cow, "N", str(CHUNK // SECTOR)])]

    def stands(self) -> bool:
        """Raises ``Wrong`` where devices of this filter are not what they should be."""
        if self.device(LIVE) is None:
            return False
        for role in STANDING:
            device = self.device(role)
            found = [] if device is None else devicemapper.table(*dmdevice.number(self.uuid(role)))
            if [_words(each) for each in found] != [_words(each) for each in self.table(role)]:
                raise Wrong("the device %s has been changed by somebody else" % self.title(role))
        return True

    def up(self) -> bool:
        """Whether it did not stand before. Raises ``Wrong``, ``OSError``."""
        if self.stands():
            return False
        for role in reversed(STANDING):
            if self.device(role) is not None:
                dmdevice.remove(self.uuid(role))
            dmdevice.create(self.title(role), self.uuid(role), self.table(role), hidden=role != LIVE)
        self._set_discards(0)
        self.compare_era()
        self.compare_boot()
        self.ledger.told.update(boot=boot(), beside=self.beside())
        self.ledger.write()
        return True

    def down(self) -> None:
        """Raises ``OSError``: it is in use."""
        for role in (POINT, COW, *STANDING):
            if self.device(role) is not None:
                dmdevice.remove(self.uuid(role))

    def era(self) -> int:
        """The present one. Raises ``Wrong`` where its metadata are lost."""
        return int(self._told()[2])

    def metadata(self) -> Tuple[int, int]:
        """Blocks used and there."""
        used, total = self._told()[1].split("/")
        return int(used), int(total)

    def has_snapshot(self) -> bool:
        """A snapshot of the metadata."""
        return self._told()[3] != "-"

    def _told(self) -> List[str]:
        words = dmdevice.status(self.uuid(LIVE))[0].arguments
        if len(words) < 4:
            raise Wrong("the record of changes of %s is lost: its metadata cannot be written" % self.name)
        return words

    def compare_era(self) -> None:
        """An era before the newest one that was seen is that of other metadata."""
        era, seen = self.era(), int(self.ledger.told["seen"])
        if era < seen:
            # Also what begins in an era to come: that has been.
            self.ledger.told["seen"] = max([seen, *self.ledger.marks.values()])
            self.ledger.doubt("its record of changes is an older one: era %d, after era %d was seen" % (era, seen))
        self.ledger.told["seen"] = era

    def compare_boot(self) -> None:
        """Where the kernel may forget after a crash, no boot is known to be none."""
        told = self.ledger.told
        if told["boot"] not in ("", boot()) and forgets(platform.release(), platform.version()):
            self.ledger.doubt("the guest was booted, and after a crash its kernel forgets what was recorded")
            # Until its counters are known.
            told["boot"] = ""

    def compare_discards(self) -> None:
        """A discard of several blocks is recorded in the first of them alone: there must be none."""
        path = self._discards()
        if int(_text(path) or 0):
            self._set_discards(0)
            self.ledger.doubt("discards were let through, which are not recorded")

    def _set_discards(self, most: int) -> None:
        with open(self._discards(), "w") as file:
            file.write("%d\n" % most)

    def _discards(self) -> str:
        return "/sys/class/block/%s/queue/discard_max_bytes" % self.device(LIVE)

    def beside(self) -> int:
        """Sectors written to the origin in this boot, less those that came through us. Only while nothing is under
        way this stays what it was, or somebody has written beside us."""
        return _written(self.origin) - _written(dmdevice.number(self.uuid(BASE)))

    def compare_counters(self) -> None:
        told, found = self.ledger.told, self.beside()
        if told["boot"] == boot() and told["beside"] != found:
            self.ledger.doubt("%s was written to beside its filter" % self.place.origin)
        told.update(boot=boot(), beside=found)


#: In which old content is saved; a power of two.
CHUNK = 16 << 10


def standing() -> Dict[str, Filter]:
    """Those that stand; of the others ``missing`` tells why not. Raises ``Wrong``."""
    found = [_standing(place) for place in configured()]
    return {each.name: each for each in found if each is not None}


def _standing(place: Place) -> Optional[Filter]:
    try:
        found = Filter(place)
        return found if found.stands() else None
    except (Wrong, OSError):
        return None


def _target(length: int, words: List[str]) -> Target:
    return Target(0, length, words[0], words[1:])


def _words(target: Target) -> Tuple[Any, ...]:
    """An era target tells its grain, and a snapshot more than it was given, in the same order."""
    return (*target[:3], *target.arguments)


def number(path: str) -> Tuple[int, int]:
    """Raises ``Wrong``."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise Wrong("%s cannot be found: %s" % (path, error.strerror)) from None
    device = (os.major(found.st_rdev), os.minor(found.st_rdev))
    if not os.path.exists(_NUMBER % (*device, "size")):
        raise Wrong("%s is no block device" % path)
    return device


def dotted(device: Tuple[int, int]) -> str:
    return "%d:%d" % device


def size(device: Tuple[int, int]) -> int:
    return int(_text(_NUMBER % (*device, "size"))) * SECTOR


def identity(device: Tuple[int, int]) -> str:
    """What tells it from others of its size; of a partition, that of its disk too."""
    found = [_text(_NUMBER % (*device, entry)) for entry in _IDENTITIES]
    if found[-1]:
        disk = os.path.basename(os.path.dirname(os.path.realpath(_NUMBER % (*device, ""))))
        with_disk = _text("/sys/class/block/%s/dev" % disk).split(":")
        found.append(identity((int(with_disk[0]), int(with_disk[1]))))
    return json.dumps([each for each in found if each])


def _written(device: Tuple[int, int]) -> int:
    """Sectors written and discarded (Linux, Documentation/block/stat.rst)."""
    figures = _text(_NUMBER % (*device, "stat")).split()
    return int(figures[6]) + (int(figures[13]) if len(figures) > 13 else 0)


def forgets(kernel: str, built: str) -> bool:
    """Whether a kernel (``uname -r``, ``uname -v``) may forget after a crash which blocks were written: before Linux
    5.12. Those that distributions have built since have been mended, and tell when they were built."""
    found = re.match(r"(\d+)\.(\d+)", kernel)
    years = [int(year) for year in re.findall(r"(?<!\d)20\d\d(?!\d)", built)]
    return (found is None or (int(found.group(1)), int(found.group(2))) < _MENDED) and max([0, *years]) < _MENDED_SINCE


def boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def missing(place: Place) -> str:
    """Why a filter does not stand; empty if it does."""
    try:
        return "" if Filter(place).stands() else "it does not stand since this boot"
    except (Wrong, OSError) as error:
        return str(error)


def doubt_missing() -> None:
    """Writes may go to disks beside filters that do not stand: nothing that their marks tell is believed later."""
    for place in configured():
        _doubt_missing(place)


def _doubt_missing(place: Place) -> None:
    try:
        found = Filter(place)
        if not found.stands():
            found.ledger.doubt("the guest was started without its filter")
            found.ledger.write()
    except (Wrong, OSError):
        # Where its companion is not there, neither are its marks.
        pass
