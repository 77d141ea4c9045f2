"""A unix socket that says what a test wrote down, whatever it hears."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

#: Talks to one client; what it returns is not used.
Script = Callable[[socket.socket], object]


@contextlib.contextmanager
def listening(script: Script) -> Iterator[Path]:
    """The path of a socket on which ``script`` serves every client, one after the other."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder, "socket")
        server.bind(str(path))
        server.listen(1)
        thread = threading.Thread(target=_serve, args=(server, script), daemon=True)
        thread.start()
        yield path
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _serve(server: socket.socket, script: Script) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                script(client)


def silence(client: socket.socket) -> None:
    """Hears all, says nothing."""
    while client.recv(65536):
        pass
