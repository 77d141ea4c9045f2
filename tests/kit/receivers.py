"""Who takes notices, on loopback: a small server of HTTP, and one of SMTP."""

from __future__ import annotations

import json
import queue
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Webhook:
    """A context manager. What came is in ``taken``; it answers with ``status``, and to where it redirects."""

    def __init__(self) -> None:
        self.taken: queue.Queue[dict[str, Any]] = queue.Queue()
        self.status = 200
        self.location = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.status == 200:
                    outer.taken.put(json.loads(data))
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self._server.server_port}/secret-path"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class Mail:
    """A context manager: takes every message of whoever comes."""

    def __init__(self) -> None:
        self.taken: queue.Queue[str] = queue.Queue()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 here")
                while line := self.rfile.readline().decode().strip().upper():
                    if line == "DATA":
                        self._say("354 go on")
                        lines = list(iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), "."))
                        outer.taken.put("\n".join(lines))
                    self._say("221 bye" if line == "QUIT" else "250 fine")

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        port = self._server.server_address[1]
        return f"mailto://localhost:{port}?from=backup@example.org&to=admin@example.org&smtp=127.0.0.1&mode=insecure"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
