"""Giving free blocks back (Linux, fs/ioctl.c: FITRIM). A child does it: agentd itself never waits for a file system."""

import fcntl
import struct
import time
from typing import Any, Dict, List

from headstart.agentd import filesystems, messages, priority
from headstart.agentd.children import Child, Ended, Line
from headstart.agentd.session import Session
from headstart.agentd.work import Refused, Work

FITRIM = 0xC0185879
#: ``struct fstrim_range``: start, length, shortest extent; the kernel puts what it has trimmed into the length.
_RANGE = struct.Struct("=QQQ")
#: File systems that the host is told of: they have to go into one frame.
_TOLD = 500


def every(line: Line) -> None:
    """Each writable file system on a block device; no other after somebody has lost interest."""
    priority.lower()
    for place in filesystems.opened():
        if line.ordered(time.monotonic()):
            return
        told = bytearray(_RANGE.pack(0, (1 << 64) - 1, 0))
        try:
            fcntl.ioctl(place.descriptor, FITRIM, told)
        except OSError as error:
            line.tell(point=place.point, problem=error.strerror)
        else:
            line.tell(point=place.point, trimmed=_RANGE.unpack(bytes(told))[1])
    line.tell(done=True)


class Trimming(Work):
    def __init__(self) -> None:
        """Raises ``OSError``."""
        self._child = Child(every)
        self._found: List[Dict[str, Any]] = []
        self.descriptor = self._child.news

    def step(self, now: float) -> None:
        try:
            for told in self._child.heard():
                if "done" in told:
                    self.answer = {"filesystems": self._found[:_TOLD]}
                else:
                    self._found.append(told)
        except Ended:
            raise Refused(messages.FAILED, "the process that was to trim has died") from None

    def cancel(self) -> None:
        self._child.release()
        self._child.close()


def trim(session: Session, request: int, told: Dict[str, Any]) -> Work:
    """``trim``: the answer comes when all are done."""
    return Trimming()
