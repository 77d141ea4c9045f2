"""What surrounds each request: an id, bounds of size and time for its body, headers for its answer.

Plain ASGI: what comes and goes is passed on as it does, in no memory of ours.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from headstart import errors
from headstart.server import body, problem
from headstart.server.logs import ACCESS
from headstart.server.metrics import Metrics
from headstart.server.settings import LARGEST_BODY, LARGEST_OBJECT

_log = logging.getLogger("headstart.server")
_access = logging.getLogger(ACCESS)
_REQUEST = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Any word can stand there. Each that is counted by itself takes memory for as long as the process lives.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Of every answer that does not say otherwise, as pages do.
_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
_HSTS_NAME, _HSTS = b"strict-transport-security", f"max-age={365 * 86400}".encode()


class Surround:
    """``own_certificate``: a browser that was told never again to let anybody pass a bad one would not come back."""

    def __init__(self, app: App, own_certificate: bool, metrics: Metrics) -> None:
        self._app = app
        self._own_certificate = own_certificate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _id(scope)
        scope.setdefault("state", {})["id"] = request
        headers = {**_HEADERS, b"x-request-id": request.encode()}
        if scope["scheme"] == "https" and not self._own_certificate:
            headers[_HSTS_NAME] = _HSTS
        told = _Told(send, headers)
        bounded = _Bounded(receive, LARGEST_OBJECT if "/objects/" in scope["path"] else LARGEST_BODY)
        began = time.perf_counter()
        with self._metrics.working():
            await self._answer(scope, bounded, told)
        self._note(scope, bounded, told, time.perf_counter() - began)

    async def _answer(self, scope: Scope, bounded: _Bounded, told: _Told) -> None:
        refused = _refused(scope, bounded.largest)
        if refused is not None:
            await problem.answer(refused)(scope, bounded, told)
            return
        try:
            await self._app(scope, bounded, told)
        except Exception as error:
            request = scope["state"]["id"]
            self._metrics.bugs.inc()
            _log.error("A request met a bug.", exc_info=error, extra={"request": request})
            if told.status:
                raise  # half of an answer is out: cut it off
            await problem.bug(request)(scope, bounded, told)

    def _note(self, scope: Scope, bounded: _Bounded, told: _Told, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.seconds.labels(method, route, str(told.status)).observe(seconds)
        self._metrics.received.labels(route).inc(bounded.count)
        self._metrics.sent.labels(route).inc(told.count)
        state = scope["state"]
        facts = {
            "request": state["id"],
            "who": state.get("who"),
            "tenant": state.get("tenant"),
            "method": scope["method"],
            "route": route,
            "status": told.status,
            "seconds": round(seconds, 4),
            "received": bounded.count,
            "sent": told.count,
        }
        _access.info("request", extra=facts)


def _id(scope: Scope) -> str:
    """What the client calls it, if that can stand in a log; else one of our own."""
    told: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return told.decode() if _REQUEST.fullmatch(told) else secrets.token_hex(8)


def _refused(scope: Scope, largest: int) -> errors.HeadstartError | None:
    """What is not to be read at all."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return errors.Usage("No address has a NUL in it.")
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return errors.Usage("A request comes with its Content-Length.")
    length: bytes = headers.get(b"content-length", b"0")
    if not length.isdigit():
        return errors.Usage("The Content-Length is no number.")
    return body.TooLarge("The request is too large.") if int(length) > largest else None


class _Bounded:
    """``receive``, for a body that comes in time, and is not longer than it may be whatever it says."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self.largest = largest
        #: Bytes that have come.
        self.count = 0
        self._receive = receive
        self._until = asyncio.get_running_loop().time() + body.WHOLE_SECONDS
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:
            # Now it is only asked whether the client is still there.
            return await self._receive()
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(body.SILENCE_SECONDS, self._until - now)):
                message = await self._receive()
        except TimeoutError:
            raise body.Slow("The body did not come in time.") from None
        self.count += len(message.get("body", b""))
        if self.count > self.largest:
            raise body.TooLarge("The request is too large.")
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message


class _Told:
    """``send``, with these headers where there are no others of their names."""

    def __init__(self, send: Send, headers: Mapping[bytes, bytes]) -> None:
        self.status = 0
        #: Bytes of the body.
        self.count = 0
        self._send = send
        self._headers = headers

    async def __call__(self, message: Message) -> None:
        self.count += len(message.get("body", b""))
        if message["type"] == "http.response.start":
            self.status = message["status"]
            names = {name.lower() for name, _ in message["headers"]}
            more = [each for each in self._headers.items() if each[0] not in names]
            message["headers"] = [*message["headers"], *more]
        await self._send(message)
