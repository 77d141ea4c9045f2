"""A disk brought to an appliance: NBD inside of TLS on a connection of its own, read-only.

::

    QEMU's NBD server  <--unix socket--  relay  ==TLS==>  relay  --socket pair-->  the appliance's libnbd
                                         (gate)

The host makes the connection: nothing listens on it, and QEMU's own server is seen by nobody but this host. Each end
has a process for it, which shows the certificate of its side, and hears that the other knows the secret of this disk in
this round. What the appliance may ask the server for, the ``gate`` says.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Self

import headstart
from headstart import errors, plain
from headstart.appliance import keys, messages, relay_process
from headstart.wire import children, nbd

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    "from headstart.appliance import relay_process; relay_process.run(sys.argv[1:])"
)
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who may have a disk: ``token`` tells which one a connection brings, ``secret`` is what both ends have to know."""

    token: str
    secret: str

    @classmethod
    def new(cls) -> Ticket:
        return cls(token_hex(messages.TOKEN_LENGTH // 2), token_hex(relay_process.SECRET_LENGTH // 2))


class Relay:
    """One end, for as long as it is open. A context manager."""

    def __init__(self, side: str, link: socket.socket, near: socket.socket, folder: Path, ticket: Ticket, export: str):
        """``link`` to the other machine and ``near`` are the relay's; ``folder`` has the keys of ``side``. Raises
        ``Unreachable``."""
        files = map(str, keys.files(folder, side))
        words = [side, str(link.fileno()), str(near.fileno()), *files, export]
        root = str(Path(headstart.__file__).parents[1])
        try:
            with link, near, children.ours_to_end():
                link.setblocking(True)
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, root, *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=[link.fileno(), near.fileno()],
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            self._process.stdin.write(f"{ticket.secret}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise errors.Unreachable(f"The disk cannot be brought to the appliance: {error}.") from error

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """That it has used up to now (proc(5), stat: utime and stime, in ticks); 0 when it is gone."""
        try:
            fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_words(self) -> str:
        """Why it has ended; empty if it has not, or for no reason."""
        if self._process.poll() in (None, 0):
            return ""
        assert self._process.stderr is not None
        return plain.joined(self._process.stderr.read(4096).decode(errors="replace"))

    def end(self) -> None:
        """From any thread."""
        self._process.kill()

    def close(self) -> None:
        # It has nothing to put in order, and would wait for its end.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def bring(link: socket.socket, uri: str, folder: Path, ticket: Ticket) -> Relay:
    """Offer what is at ``uri`` to the appliance at the other end of ``link``. Raises ``Unreachable``."""
    export = nbd.Export.parse(uri)
    try:
        link.sendall(messages.DATA_MAGIC + ticket.token.encode())
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.settimeout(_CONNECT_SECONDS)
        server.connect(str(export.socket))
    except OSError as error:
        link.close()
        raise errors.Unreachable(f"The disk cannot be brought to the appliance: {error}.") from error
    return Relay(keys.HOST, link, server, folder, ticket, export.name)


def receive(link: socket.socket, folder: Path, ticket: Ticket) -> tuple[Relay, socket.socket]:
    """What is brought by ``link``, and the connection at which an NBD client finds it. Raises ``Unreachable``."""
    ours, theirs = socket.socketpair()
    try:
        return Relay(keys.APPLIANCE, link, theirs, folder, ticket, ""), ours
    except BaseException:
        ours.close()
        raise
