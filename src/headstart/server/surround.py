"""What surrounds each request: an id, bounds of size and time for its body, headers for its answer.

Plain ASGI: what comes and goes is passed on as it does, in no memory of ours.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headstart.server import problem
from headstart.server.api import body
from headstart.server.settings import LARGEST_BODY, LARGEST_OBJECT

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
_NOT_KEPT = (b"cache-control", b"no-store")


class Surround:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = secrets.token_hex(8)
        scope.setdefault("state", {})["id"] = request
        largest = LARGEST_OBJECT if "/objects/" in scope["path"] else LARGEST_BODY
        told = _Told(send, request)
        told_length = _length(scope)
        if told_length is not None and told_length > largest:
            await problem.answer(body.TooLarge("The request is too large."))(scope, receive, told)
            return
        await self._app(scope, _Bounded(receive, largest), told)


def _length(scope: MutableMapping[str, Any]) -> int | None:
    text: bytes = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(text) if text.isdigit() else None


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
    """``send``, with our headers."""

    def __init__(self, send: Send, request: str) -> None:
        self._send = send
        self._request = request

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            more = [*_HEADERS, _NOT_KEPT, (b"x-request-id", self._request.encode())]
            message["headers"] = [*message["headers"], *(each for each in more if each[0] not in names)]
        await self._send(message)
