"""What surrounds each request: an id, bounds of size and time for its body, headers for its answer.

Plain ASGI: what comes and goes is passed on as it does, in no memory of ours.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from headstart import errors
from headstart.server import problem
from headstart.server.api import body
from headstart.server.settings import LARGEST_BODY, LARGEST_OBJECT

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

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

    def __init__(self, app: App, own_certificate: bool) -> None:
        self._app = app
        self._own_certificate = own_certificate

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = secrets.token_hex(8)
        scope.setdefault("state", {})["id"] = request
        largest = LARGEST_OBJECT if "/objects/" in scope["path"] else LARGEST_BODY
        secure = scope["scheme"] == "https" and not self._own_certificate
        told = _Told(send, {**_HEADERS, b"x-request-id": request.encode(), **({_HSTS_NAME: _HSTS} if secure else {})})
        refused = _refused(scope, largest)
        if refused is not None:
            await problem.answer(refused)(scope, receive, told)
            return
        await self._app(scope, _Bounded(receive, largest), told)


def _refused(scope: MutableMapping[str, Any], largest: int) -> errors.HeadstartError | None:
    """What is not to be read at all."""
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
        self._receive = receive
        self._left = largest
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
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise body.TooLarge("The request is too large.")
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message


class _Told:
    """``send``, with these headers where there are no others of their names."""

    def __init__(self, send: Send, headers: Mapping[bytes, bytes]) -> None:
        self._send = send
        self._headers = headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            more = [each for each in self._headers.items() if each[0] not in names]
            message["headers"] = [*message["headers"], *more]
        await self._send(message)
