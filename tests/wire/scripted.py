"""A unix socket that says what a test wrote down, whatever it hears."""

from __future__ import annotations

import contextlib
import json
import re
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


def requests(client: socket.socket) -> Iterator[dict[str, object]]:
    rest = b""
    while data := client.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line.lstrip(b"\xff"))


def answer(client: socket.socket, value: object) -> None:
    client.sendall(json.dumps({"return": value}).encode() + b"\n")


def synchronise(client: socket.socket, request: dict[str, object]) -> None:
    found = re.search(r"\d+", str(request["arguments"]))
    assert found is not None
    client.sendall(b"\xff")
    answer(client, int(found.group()))


def mute(client: socket.socket) -> None:
    for request in requests(client):
        if request["execute"] == "guest-sync-delimited":
            synchronise(client, request)
