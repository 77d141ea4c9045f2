"""Where an agent answers, and a socket to it.

::

    /run/vm/agent, unix:/run/vm/agent     QEMU's end of the virtio-serial port
    vsock:CID[:PORT]                      the guest that QEMU has given this number
    tcp:HOST:PORT,keys=DIR                over a network, with the keys of ``headstart agent keys DIR``
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.agentd import messages

CONNECT_SECONDS = 5.0
#: In a folder of keys: what the guest gets, and what the host keeps; the secret is for both.
AGENT_FILE, HOST_FILE, SECRET_FILE = "agent.pem", "host.pem", "secret"
_TCP = re.compile(r"tcp:(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:,]+)):(?P<port>\d+),keys=(?P<keys>.+)")
_VSOCK = re.compile(r"vsock:(\d+)(?::(\d+))?")
#: Below are the hypervisor, loopback and the host (vsock(7)).
_FIRST_GUEST = 3
_FORMS = "Give a socket's path, vsock:CID[:PORT] or tcp:HOST:PORT,keys=DIR."


class Address:
    """A place where an agent may answer."""

    @property
    def secret(self) -> str:
        """For a HELLO; empty where none is needed. Raises ``Usage``."""
        return ""

    def connect(self) -> socket.socket:
        """Raises ``Unreachable``, ``Unsupported``, ``Usage``."""
        raise NotImplementedError


def parse(text: str) -> Address:
    """Raises ``Usage``."""
    if text.startswith("tcp:"):
        found = _TCP.fullmatch(text)
        if found is None or not 0 < int(found["port"]) < 1 << 16:
            raise errors.Usage(f"{text!r} is no address of an agent. {_FORMS}")
        return _Tcp(found["six"] or found["host"], int(found["port"]), Path(found["keys"]))
    if text.startswith("vsock:"):
        found = _VSOCK.fullmatch(text)
        if found is None or not _FIRST_GUEST <= int(found[1]) < 0xFFFFFFFF:
            raise errors.Usage(f"{text!r} is no address of an agent: CID is a number from 3. {_FORMS}")
        return _Vsock(int(found[1]), int(found[2] or messages.VSOCK_PORT))
    if not text:
        raise errors.Usage(f"An empty address is none. {_FORMS}")
    return _Unix(Path(text.removeprefix("unix:")))


def connect(text: str) -> socket.socket:
    """To the agent at an address. Raises ``Unreachable``, ``Unsupported``, ``Usage``."""
    return parse(text).connect()


@dataclass(frozen=True, slots=True)
class _Unix(Address):
    path: Path

    def connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        question = "Is the VM running, with this socket on its agent's port?"
        return _connected(link, str(self.path), str(self.path), question)


@dataclass(frozen=True, slots=True)
class _Vsock(Address):
    cid: int
    port: int

    def connect(self) -> socket.socket:
        try:
            link = socket.socket(socket.AF_VSOCK)
        except (AttributeError, OSError) as error:
            raise errors.Unsupported(
                "This host has no vsock: load the kernel's module vhost_vsock, or use another channel to the agent."
            ) from error
        question = "Does the agent run there with --vsock, and is that the VM's guest-cid?"
        return _connected(link, (self.cid, self.port), f"vsock:{self.cid}:{self.port}", question)


@dataclass(frozen=True, slots=True)
class _Tcp(Address):
    host: str
    port: int
    keys: Path

    @property
    def secret(self) -> str:
        return _key(self.keys / SECRET_FILE).strip()

    def connect(self) -> socket.socket:
        context = self._context()
        place, question = f"{self.host}:{self.port}", "Does it run there with --tcp, and can it be reached from here?"
        try:
            plain = socket.create_connection((self.host, self.port), CONNECT_SECONDS)
        except OSError as error:
            raise _unreachable(place, error, question) from error
        try:
            return context.wrap_socket(plain)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise errors.Unreachable(
                f"Whoever answers at {place} has another key than {self.keys / HOST_FILE} tells: nothing was said to"
                " it. Put the agent.pem of this folder into the guest, or name the right folder."
            ) from error
        except OSError as error:
            plain.close()
            raise _unreachable(place, error, question) from error

    def _context(self) -> ssl.SSLContext:
        """The one certificate is the only authority: a name or another authority counts for nothing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with _readable(self.keys / HOST_FILE):
            context.load_verify_locations(self.keys / HOST_FILE)
        return context


def _key(path: Path) -> str:
    with _readable(path):
        return path.read_text(encoding="ascii")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise errors.Usage(f"The key {path} cannot be read: {error}. 'headstart agent keys DIR' makes keys.") from error


def _connected(link: socket.socket, address: str | tuple[int, int], place: str, question: str) -> socket.socket:
    link.settimeout(CONNECT_SECONDS)
    try:
        link.connect(address)
    except OSError as error:
        link.close()
        raise _unreachable(place, error, question) from error
    return link


def _unreachable(place: str, error: OSError, question: str) -> errors.Unreachable:
    if isinstance(error, PermissionError):
        question = "Run as root, or as the user that QEMU runs as."
    return errors.Unreachable(f"The agent at {place} cannot be reached: {error.strerror or error}. {question}")
