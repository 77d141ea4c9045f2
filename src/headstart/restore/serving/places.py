"""Where clients of NBD connect to a server of ours."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from headstart import errors
from headstart.wire.nbd import Export

#: IANA's for NBD.
PORT = 10809
#: sockaddr_un, unix(7), without the byte that ends it.
_LONGEST = 107
#: What nbdkit looks for (nbdkit-tls(1)).
_CERTIFICATES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")


class Place(Protocol):
    """To be prepared by whoever starts nbdkit, who removes its leavings once it has ended."""

    def prepare(self) -> None:
        """Refuse what cannot be listened at, as far as that can be seen before: ``TargetRefused``, ``Usage``."""

    def arguments(self) -> Sequence[str]:
        """For nbdkit."""

    def uri(self, disk: str) -> str: ...

    def leavings(self) -> Sequence[Path]:
        """Files that nbdkit makes, and leaves."""


@dataclass(frozen=True, slots=True)
class Unix:
    """A socket that is made, for this user alone."""

    socket: Path

    def prepare(self) -> None:
        if len(bytes(self.socket)) > _LONGEST:
            raise errors.Usage(f"{self.socket} is too long for a socket: {_LONGEST} bytes at most.")
        if not self.socket.parent.is_dir():
            raise errors.TargetRefused(f"{self.socket.parent} is no directory: make it, or name another socket.")
        if self.socket.exists() or self.socket.is_symlink():
            raise errors.TargetRefused(
                f"{self.socket} exists. If nobody uses it any longer, remove it; else name another socket."
            )

    def arguments(self) -> Sequence[str]:
        return ["--unix", str(self.socket.absolute())]

    def export(self, disk: str) -> Export:
        return Export(self.socket.absolute(), disk)

    def uri(self, disk: str) -> str:
        return self.export(disk).uri

    def leavings(self) -> Sequence[Path]:
        return [self.socket.absolute()]


class Tls(Protocol):
    """How the two ends of a connection over TCP know each other."""

    def check(self) -> None:
        """Raises ``Usage``."""

    def arguments(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Certificates:
    """X.509: a directory with the server's and the authority's. Clients have to show one of that authority, too."""

    directory: Path

    def check(self) -> None:
        for name in _CERTIFICATES:
            _check_readable(self.directory / name)

    def arguments(self) -> Sequence[str]:
        return [f"--tls-certificates={self.directory.absolute()}", "--tls-verify-peer"]


@dataclass(frozen=True, slots=True)
class SharedKeys:
    """A file with a line ``user:key`` for each client."""

    file: Path

    def check(self) -> None:
        _check_readable(self.file)

    def arguments(self) -> Sequence[str]:
        return [f"--tls-psk={self.file.absolute()}"]


@dataclass(frozen=True, slots=True)
class Tcp:
    """``tls`` None: on loopback alone, where nobody but this machine's users can connect."""

    host: str
    port: int = PORT
    tls: Tls | None = None

    @classmethod
    def parse(cls, text: str, tls: Tls | None = None, port: int = PORT) -> Tcp:
        """From HOST, HOST:PORT or [ADDRESS]:PORT; ``port`` where none is said. Raises ``Usage``."""
        host, colon, number = text.rpartition(":")
        if not colon or text.endswith("]") or (":" in host and not host.startswith("[")):
            host, number = text, str(port)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not number.isascii() or not number.isdecimal() or not 1 <= int(number) <= 65535:
            raise errors.Usage(f"{text!r} is no HOST:PORT to listen at.")
        return cls(host, int(number), tls)

    def prepare(self) -> None:
        if self.tls is not None:
            self.tls.check()
        elif not self._is_local():
            raise errors.Usage(
                f"Whoever reaches {self.host} could read the disks: give --tls-certificates or --tls-psk, or listen at "
                "127.0.0.1."
            )

    def arguments(self) -> Sequence[str]:
        tls = ["--tls=off"] if self.tls is None else ["--tls=require", *self.tls.arguments()]
        return ["--ipaddr", self.host, "--port", str(self.port), *tls]

    def uri(self, disk: str) -> str:
        host = self.host
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            if address.is_unspecified:
                host = socket.gethostname()
            elif address.version == 6:
                host = f"[{host}]"
        return f"{'nbds' if self.tls else 'nbd'}://{host}:{self.port}/{quote(disk, safe='')}"

    def leavings(self) -> Sequence[Path]:
        return []

    def _is_local(self) -> bool:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise errors.Usage(f"{self.host!r} is no address of this machine: {error}.") from error
        return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _check_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise errors.Usage(f"{file} cannot be read: {error.strerror}. TLS needs it.") from error
