"""A gateway in front of a server of S3 that misbehaves as planned: what networks, providers and their quotas do.

It hands on what it gets as it is, with its own address as ``Host``, which requests are signed for.
"""

from __future__ import annotations

import http.client
import http.server
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    #: Of the body, these are sent, though all are promised; then the connection is cut.
    sent: int | None = None


class Cut(Exception):
    """The connection is cut, and there is no answer."""


#: Gets what hands the request on; returns what the client is told.
Fault = Callable[[Callable[[], Answer]], Answer]


def refuse(status: int, code: str = "", message: str = "planned") -> Fault:
    """The server does not do it, and says why."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode() if code else b""

    def fault(_: Callable[[], Answer]) -> Answer:
        return Answer(status, [("Content-Type", "application/xml")], body)

    return fault


def lose_request(_: Callable[[], Answer]) -> Answer:
    raise Cut


def lose_answer(forward: Callable[[], Answer]) -> Answer:
    """The server does it, and nobody learns of it."""
    forward()
    raise Cut


def break_after(forward: Callable[[], Answer]) -> Answer:
    """The server does it, and says that it failed."""
    forward()
    return Answer(500, body=b"<Error><Code>InternalError</Code></Error>")


def truncate(forward: Callable[[], Answer]) -> Answer:
    """Half of the answer."""
    found = forward()
    return Answer(found.status, found.headers, found.body, len(found.body) // 2)


def delay(seconds: float) -> Fault:
    def fault(forward: Callable[[], Answer]) -> Answer:
        time.sleep(seconds)
        return forward()

    return fault


def ignore_conditions(forward: Callable[[], Answer]) -> Answer:
    """A server that has never heard of If-None-Match: it did as it was told."""
    found = forward()
    return Answer(200, [("ETag", '"0"')]) if found.status == 412 else found


def hide(name: str) -> Fault:
    """A listing that does not know yet of objects in whose keys this pattern is found."""
    entry = re.compile(rb"<Contents>(?:(?!</Contents>).)*?<Key>[^<]*" + name.encode() + rb"[^<]*</Key>.*?</Contents>")

    def fault(forward: Callable[[], Answer]) -> Answer:
        found = forward()
        return Answer(found.status, found.headers, entry.sub(b"", found.body))

    return fault


def at_time(moment: str) -> Fault:
    """A server that has this date."""

    def fault(forward: Callable[[], Answer]) -> Answer:
        found = forward()
        kept = [(name, value) for name, value in found.headers if name.lower() != "date"]
        return Answer(found.status, [*kept, ("Date", moment)], found.body)

    return fault


class Gateway:
    """A context manager: it is listening inside. ``requests`` are method and path of all that came."""

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self._target = urlsplit(target).netloc
        self._lock = threading.Lock()
        self._plans: list[tuple[str, str, int | None, Fault]] = []
        self.requests: list[tuple[str, str]] = []
        gateway = self

        class Handler(_Handler):
            def handed_on(self) -> Answer:
                return gateway._answer(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def plan(self, method: str, path: str, fault: Fault, times: int | None = 1) -> None:
        """For the next ``times`` requests (None: all) of the method in whose path and query ``path`` is found."""
        with self._lock:
            self._plans.append((method, path, times, fault))

    def forget(self) -> None:
        with self._lock:
            self._plans.clear()

    def count(self, method: str, path: str = "") -> int:
        with self._lock:
            return sum(done == method and path in where for done, where in self.requests)

    def _answer(self, handler: _Handler) -> Answer:
        fault = self._fault(handler.command, handler.path)
        body = handler.body()

        def forward() -> Answer:
            headers = {
                name: value for name, value in handler.headers.items() if name.lower() not in _HOP - {"content-length"}
            }
            connection = http.client.HTTPConnection(self._target, timeout=60)
            try:
                connection.request(handler.command, handler.path, body, headers)
                found = connection.getresponse()
                kept = [(name, value) for name, value in found.getheaders() if name.lower() not in _HOP]
                if handler.command == "HEAD":
                    kept += [("Content-Length", found.getheader("Content-Length") or "0")]
                return Answer(found.status, kept, found.read())
            finally:
                connection.close()

        return forward() if fault is None else fault(forward)

    def _fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            for place, (planned, where, times, fault) in enumerate(self._plans):
                if planned == method and where in path:
                    if times is not None:
                        self._plans[place : place + 1] = [(planned, where, times - 1, fault)] if times > 1 else []
                    return fault
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handed_on(self) -> Answer:
        raise NotImplementedError

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self) -> None:
        try:
            answer = self.handed_on()
        except Cut:
            self._cut()
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.sent])
        if answer.sent is not None:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
