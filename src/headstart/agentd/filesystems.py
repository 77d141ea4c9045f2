"""Freezing and thawing file systems (Linux, fs/ioctl.c: FIFREEZE, FITHAW)."""

import _thread
import ctypes
import errno
import fcntl
import os
import select
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from headstart.agentd import mounts

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
#: The kind of file system cannot be frozen.
_INCAPABLE = (errno.EOPNOTSUPP, errno.ENOTTY)
#: What the host is told of a file system that was not frozen.
INCAPABLE = "incapable"
BUSY = "busy"


class Place(NamedTuple):
    """A mounted file system. An open ``descriptor`` on it serves also when its path does not."""

    number: str
    point: str
    kind: str
    descriptor: int


def opened(among: Optional[Iterable[Tuple[str, str]]] = None) -> List[Place]:
    """Every writable file system on a block device, once, in the order to freeze: the last mounted first, as it may
    lie in a file on one that was mounted before it. ``among``: only these (number, point)."""
    chosen = None if among is None else set(among)
    found: Dict[str, Place] = {}
    for mount in mounts.mounted():
        wanted = chosen is None or (mount.number, mount.point) in chosen
        if mount.writable and wanted and mount.number not in found:
            descriptor = _open(mount)
            if descriptor is not None:
                found[mount.number] = Place(mount.number, mount.point, mount.kind, descriptor)
    return list(reversed(list(found.values())))


def _open(mount: mounts.Mount) -> Optional[int]:
    """None if the mount cannot be reached by its path: another one covers it, or there is none."""
    try:
        descriptor = os.open(mount.point, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    device = os.fstat(descriptor).st_dev
    # btrfs shows device numbers of its own, with major 0.
    if os.major(device) and "%d:%d" % (os.major(device), os.minor(device)) != mount.number:
        os.close(descriptor)
        return None
    return descriptor


def thaw(places: List[Place]) -> int:
    """The last frozen first. How many were frozen until now."""
    return sum(_thaw(place) for place in reversed(places))


def _thaw(place: Place) -> bool:
    try:
        fcntl.ioctl(place.descriptor, FITHAW, 0)
    except OSError:
        return False
    return True


def _write_back(place: Place) -> None:
    ctypes.CDLL(None).syncfs(place.descriptor)


class Freezing:
    """Freezes ``places`` one by one in a thread of its own: the kernel writes everything back, for as long as that
    takes, and cannot be interrupted. What is frozen is thawed all the same, and at once."""

    def __init__(self, places: List[Place]) -> None:
        self._places = places
        self._lock = _thread.allocate_lock()
        self._over = False
        self._frozen: List[Place] = []
        #: Where the kernel is.
        self.where = ""
        self.skipped: List[Dict[str, str]] = []
        #: Why it came to nothing.
        self.failure = ""
        #: Readable when no file system is being frozen any longer.
        self.ended, self._end = os.pipe()
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            # Before anything is frozen, so that little is left to be written while the guest waits.
            for act in (_write_back, self._freeze):
                for place in self._places:
                    if self._over or self.failure:
                        return
                    self.where = place.point
                    act(place)
        finally:
            os.close(self._end)

    def _freeze(self, place: Place) -> None:
        try:
            fcntl.ioctl(place.descriptor, FIFREEZE, 0)
        except OSError as error:
            if error.errno in _INCAPABLE or error.errno == errno.EBUSY:
                why = BUSY if error.errno == errno.EBUSY else INCAPABLE
                self.skipped.append({"point": place.point, "type": place.kind, "why": why})
            else:
                self.failure = "cannot freeze %s: %s" % (place.point, error.strerror)
            return
        with self._lock:
            late = self._over
            if not late:
                self._frozen.append(place)
        if late:
            _thaw(place)

    @property
    def frozen(self) -> List[Place]:
        return list(self._frozen)

    @property
    def done(self) -> bool:
        return bool(select.select([self.ended], [], [], 0)[0])

    def wait(self) -> None:
        os.read(self.ended, 1)

    def thaw(self) -> int:
        """How many were frozen until now. What is just being frozen is thawed as soon as the kernel is done."""
        with self._lock:
            self._over = True
            frozen, self._frozen = self._frozen, []
        return thaw(frozen)
