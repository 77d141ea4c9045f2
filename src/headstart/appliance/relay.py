"""A disk brought to an appliance: NBD over TLS on a connection of its own, read-only.

::

    QEMU's NBD server  <--unix socket--  nbdkit  ==TLS==>  the appliance's libnbd
                                          |
    the connection is made by us, and becomes the child's stdin and stdout: no byte passes through Python, nothing
    listens on this host, and QEMU's own server is seen by nobody but this host

Both ends prove that they know a key that was made for this one disk of this one round.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Self

from headstart import errors, plain
from headstart.appliance import messages

#: Requests of one client that nbdkit hands on at a time; libnbd has 12 under way.
_THREADS = 16


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who may have a disk: ``token`` tells which one a connection brings, ``key`` is what both ends have to know."""

    token: str
    user: str
    key: str

    @classmethod
    def new(cls) -> Ticket:
        return cls(token_hex(messages.TOKEN_LENGTH // 2), token_hex(8), token_hex(32))

    def write(self, folder: Path) -> Path:
        """The key as GnuTLS reads it, for its owner alone (the folder is)."""
        path = folder / "psk"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{self.user}:{self.key}\n")
        return path


class Relay:
    """Hands ``uri`` to whoever is at the other end of ``link``, for as long as it is open. A context manager."""

    def __init__(self, link: socket.socket, uri: str, ticket: Ticket) -> None:
        """``link`` is the relay's. Raises ``Unsupported`` where there is no nbdkit, ``Unreachable``."""
        self._folder = tempfile.TemporaryDirectory(prefix="headstart-relay-")
        try:
            with link:
                link.sendall(messages.DATA_MAGIC + ticket.token.encode())
                self._process = self._start(link, uri, ticket.write(Path(self._folder.name)))
        except OSError as error:
            self._folder.cleanup()
            if isinstance(error, FileNotFoundError):
                raise errors.Unsupported("A disk is offered to an appliance by nbdkit: install it.") from error
            raise errors.Unreachable(f"The disk cannot be brought to the appliance: {error}.") from error

    @staticmethod
    def _start(link: socket.socket, uri: str, keys: Path) -> subprocess.Popen[bytes]:
        link.setblocking(True)
        options = ["--single", "--readonly", "--exit-with-parent", "--threads", str(_THREADS)]
        return subprocess.Popen(
            ["nbdkit", *options, "--tls=require", f"--tls-psk={keys}", "nbd", f"uri={uri}"],
            stdin=link.fileno(),
            stdout=link.fileno(),
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def last_words(self) -> str:
        """Why it has ended; empty if it has not, or for no reason."""
        if self._process.poll() in (None, 0):
            return ""
        assert self._process.stderr is not None
        return plain.joined(self._process.stderr.read(4096).decode(errors="replace"))

    def close(self) -> None:
        # It has nothing to put in order, and would wait for its client.
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        with contextlib.suppress(OSError):
            self._process.stderr.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
