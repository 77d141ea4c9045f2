"""The daemon's socket: what the command line asks of it. One JSON object on a line each way.

::

    ->  {"do": "backup", "vm": "web", ...}
    <-  {"progress": {"what": "copying", "done": 1048576, "total": 8388608}}       any number of these
    <-  {"result": {...}}    or    {"error": {"kind": "NotFound", "message": "...", "facts": {...}}}
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from headstart import errors

NAME = "daemon.sock"
#: An answer that takes longer is begun with progress, again and again.
ANSWER_SECONDS = 30.0
IDLE_SECONDS = 60.0
_LONGEST_LINE = 1 << 20

_log = logging.getLogger("headstart.host")

#: ``tell`` sends an object ahead of the result.
Tell = Callable[[Mapping[str, Any]], None]
Handler = Callable[[Mapping[str, Any], Tell], Any]


class Absent(errors.Unreachable):
    """No daemon serves this state."""


def address(state: Path) -> Path:
    return state / NAME


class Server:
    """Serves until it is left; a context manager. ``handle`` is called in a thread of its own for each request; what it
    raises of ``HeadstartError`` is the answer."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        outer_handle = handle

        class Line(socketserver.StreamRequestHandler):
            # Who says nothing for so long is let go.
            timeout = IDLE_SECONDS

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    _serve(self.rfile, self.wfile, outer_handle)

        # A name that is there takes connections: between binding and listening it would refuse them.
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        with _short(fresh) as short:
            self._server = _Threading(short, Line)
        fresh.replace(path)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class _Threading(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # Linux gives its file this mode (net/unix/af_unix.c); a umask would be that of all threads meanwhile.
        os.fchmod(self.socket.fileno(), 0o600)
        super().server_bind()


def _serve(incoming: BufferedIOBase, outgoing: BufferedIOBase, handle: Handler) -> None:
    def tell(values: Mapping[str, Any]) -> None:
        outgoing.write(json.dumps(values, default=str).encode() + b"\n")
        outgoing.flush()

    while line := incoming.readline(_LONGEST_LINE):
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            tell(_told(errors.Usage(f"This is no request: {error}.")))
            return
        try:
            tell({"result": handle(request, tell)})
        except errors.HeadstartError as error:
            tell(_told(error))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            _log.error("A request failed.", exc_info=error)
            tell(_told(errors.HeadstartError(f"The daemon cannot answer this: {type(error).__name__}: {error}.")))


def _told(error: errors.HeadstartError) -> dict[str, Any]:
    message = " ".join((str(error), *getattr(error, "__notes__", ())))
    return {"error": {"kind": errors.kind(error), "message": message, "facts": error.facts}}


def ask(state: Path, request: Mapping[str, Any], progress: Callable[[str, int, int], None] | None = None) -> Any:
    """The daemon's answer. Raises ``Absent``, and what it answers with."""
    with contextlib.closing(_connected(state)) as link:
        link.settimeout(ANSWER_SECONDS)
        try:
            link.sendall(json.dumps(request).encode() + b"\n")
            for line in link.makefile("rb"):
                answer = json.loads(line)
                if "result" in answer:
                    return answer["result"]
                if "error" in answer:
                    raise _error(answer["error"])
                if progress is not None and "progress" in answer:
                    told = answer["progress"]
                    progress(told["what"], told["done"], told["total"])
        except (OSError, ValueError) as error:
            raise errors.Unreachable(f"The daemon at {address(state)} does not answer: {error}.") from error
    raise errors.Unreachable(f"The daemon at {address(state)} ended while it was asked. Is it being restarted?")


def _connected(state: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    try:
        with _short(address(state)) as short:
            link.connect(short)
    except OSError as error:
        link.close()
        if isinstance(error, PermissionError):
            raise errors.Usage(f"{address(state)} belongs to another user: ask as that one (root?).") from error
        raise Absent(f"No daemon serves {state}. 'headstart run' is it.") from error
    return link


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the socket that fits into an address (108 bytes), however deep the folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _error(told: Mapping[str, Any]) -> errors.HeadstartError:
    kinds = {kind.__name__: kind for kind in errors.EXIT_CODES}
    kind = kinds.get(str(told.get("kind")), errors.HeadstartError)
    return kind(str(told.get("message", "")), **told.get("facts", {}))
