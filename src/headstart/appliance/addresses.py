"""Where an appliance answers: ``tcp:HOST:PORT[,monitor=PATH],keys=DIR``."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.appliance import keys
from headstart.appliance.link import Link, Lost, keep_alive

CONNECT_SECONDS = 5.0
_TCP = re.compile(
    r"tcp:(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:,]+)):(?P<port>\d+)(?:,monitor=(?P<monitor>[^,]+))?,keys=(?P<keys>.+)"
)


@dataclass(frozen=True, slots=True)
class Address:
    """``keys``: a folder with the keys of a host. ``monitor``: QMP of its QEMU, if it is a guest of this host and is to
    have the disks plugged in."""

    host: str
    port: int
    keys: Path
    monitor: Path | None = None

    @property
    def name(self) -> str:
        """By which it is known, and remembered."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def text(self) -> str:
        """What ``parse`` takes."""
        monitor = f",monitor={self.monitor}" if self.monitor is not None else ""
        return f"tcp:{self.name}{monitor},keys={self.keys}"

    def plain(self) -> socket.socket:
        """A connection for a disk. Raises ``Lost``."""
        try:
            link = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        except OSError as error:
            raise Lost(f"The appliance at {self.name} cannot be reached: {error.strerror or error}.") from error
        keep_alive(link)
        return link

    def connect(self) -> Link:
        """A connection for orders. Raises ``Lost``, ``Usage``."""
        context = keys.context(self.keys, keys.HOST)
        link = self.plain()
        try:
            return Link(context.wrap_socket(link))
        except ssl.SSLCertVerificationError as error:
            raise Lost(
                f"Whoever answers at {self.name} has another key than {self.keys} tells: nothing was said to it."
            ) from error
        except OSError as error:
            raise Lost(f"The appliance at {self.name} does not speak TLS with us: {error}.") from error


def parse(text: str) -> Address:
    """Raises ``Usage``."""
    found = _TCP.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise errors.Usage(f"{text!r} is no address of an appliance. Give tcp:HOST:PORT[,monitor=PATH],keys=DIR.")
    monitor = Path(found["monitor"]) if found["monitor"] else None
    return Address(found["six"] or found["host"], int(found["port"]), Path(found["keys"]), monitor)
