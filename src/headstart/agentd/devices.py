"""Which device a name meant: the kernel gives the name of a disk that has gone to the next one that comes."""

import os
from typing import Any, Dict, Optional, Tuple

from headstart.agentd import messages
from headstart.agentd.work import Refused

_BLOCK = "/sys/class/block"


class Devices:
    """Devices by name, as somebody was shown them."""

    def __init__(self) -> None:
        #: Folders of sysfs, open, and what they tell. What is in such a folder can be read as long as that very device
        #: is there, whatever has its name. Unlike the device, which would keep its name to itself, it may be open.
        self._met: Dict[str, Tuple[int, Any]] = {}

    def meet(self, name: str) -> None:
        """From now on the name means the device that has it. Raises ``OSError``."""
        folder = os.open("%s/%s" % (_BLOCK, name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            told = _told(folder)
        except OSError:
            os.close(folder)
            raise
        self._drop(name)
        self._met[name] = folder, told

    def require(self, name: str, descriptor: Optional[int] = None) -> None:
        """Raises ``Refused`` unless the device, and what is open as ``descriptor``, is the one that was met; one that
        never was may be any.

        What is found good stays so: an open descriptor never leads to another device, and fails when its own has gone.
        """
        if name not in self._met:
            return
        folder, (number, sequence) = self._met[name]
        try:
            same = _told(folder) == (number, sequence)
        except OSError:
            same = False
        if not same or (descriptor is not None and os.fstat(descriptor).st_rdev != number):
            raise Refused(messages.WRONG, "%s is not the device any longer that it was in this session" % name)

    def forget(self) -> None:
        for name in list(self._met):
            self._drop(name)

    def _drop(self, name: str) -> None:
        if name in self._met:
            os.close(self._met.pop(name)[0])


def _told(folder: int) -> Tuple[int, str]:
    """Its number; and which medium it has, from Linux 5.15 on. Raises ``OSError``."""
    major, minor = _text(folder, "dev").split(":")
    try:
        sequence = _text(folder, "diskseq")
    except FileNotFoundError:
        sequence = ""
    return os.makedev(int(major), int(minor)), sequence


def _text(folder: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, 256).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
