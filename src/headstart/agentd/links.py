"""The channel to the host, and the usual one: a virtio-serial port. For the others see ``sockets``."""

import errno
import os
import stat
from typing import Optional

from headstart.agentd.frames import Buffer
from headstart.agentd.messages import PORT

_PORTS = "/sys/class/virtio-ports"
#: virtio_console cuts writes at this; a longer one would only be copied for nothing.
LONGEST = 32 * 1024


class Gone(Exception):
    """The channel failed."""


class Link:
    """Bytes in both directions without waiting."""

    #: A link that is gone does not come back.
    once = True

    def fileno(self) -> int:
        raise NotImplementedError

    def read(self, count: int) -> Optional[bytes]:
        """Some bytes; empty if nobody is at the other end; None if there are none yet. Raises ``Gone``."""
        raise NotImplementedError

    def write(self, data: Buffer) -> int:
        """How many were taken. Raises ``Gone``."""
        raise NotImplementedError

    def pending(self) -> bool:
        """``read`` has something that the descriptor does not tell."""
        return False

    @property
    def due(self) -> Optional[float]:
        """When ``read`` is to be called although nothing has happened, by ``time.monotonic``."""
        return None

    def close(self) -> None:
        raise NotImplementedError


class Port(Link):
    """A virtio-serial port: a stream that outlives the host's program at the other end."""

    once = False

    def __init__(self, path: str) -> None:
        """Raises ``OSError``: EBUSY if another program has it."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def read(self, count: int) -> Optional[bytes]:
        try:
            return os.read(self._descriptor, count)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Gone(str(error)) from None

    def write(self, data: Buffer) -> int:
        try:
            return os.write(self._descriptor, memoryview(data)[:LONGEST])
        except BlockingIOError:
            return 0
        except OSError as error:
            # The port was unplugged, or the host has closed its end.
            raise Gone(str(error)) from None

    def close(self) -> None:
        os.close(self._descriptor)


def find_port(name: str = PORT) -> str:
    """The device of a virtio-serial port, also where no udev makes links or devices. Raises ``OSError``."""
    link = "/dev/virtio-ports/" + name
    if os.path.exists(link):
        return link
    for entry in sorted(os.listdir(_PORTS)) if os.path.isdir(_PORTS) else []:
        with open(os.path.join(_PORTS, entry, "name")) as file:
            if file.read().strip() == name:
                return _device(entry)
    raise OSError(errno.ENODEV, "this VM has no virtio-serial port named %s" % name)


def _device(entry: str) -> str:
    path = "/dev/" + entry
    if not os.path.exists(path):
        with open(os.path.join(_PORTS, entry, "dev")) as file:
            major, minor = file.read().split(":")
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(int(major), int(minor)))
    return path
