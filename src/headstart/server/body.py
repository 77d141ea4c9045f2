"""Bodies of objects: of known length, in bounded memory, within bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Request

from headstart import errors, units
from headstart.server.settings import LARGEST_OBJECT

#: Of all bodies that are under way at a time. Whoever comes when that much is taken, waits.
BUDGET = 512 * units.MIB
#: Seconds in which some byte must come, in which the whole must have come, and in which there must be room for it.
SILENCE_SECONDS, WHOLE_SECONDS, ROOM_SECONDS = 30.0, 900.0, 60.0


class TooLarge(errors.Usage):
    """HTTP 413."""


class Slow(errors.StoreFailed):
    """HTTP 408: the client did not send what it said, in time."""


class Budget:
    """Bytes of memory, lent to one body after the other."""

    def __init__(self, size: int = BUDGET) -> None:
        self._free = size
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def lend(self, size: int) -> AsyncIterator[None]:
        """Raises ``TooOften`` where none comes free in time."""
        async with self._changed:
            try:
                async with asyncio.timeout(ROOM_SECONDS):
                    await self._changed.wait_for(lambda: self._free >= size)
            except TimeoutError:
                raise errors.TooOften("The server has too much under way. Try again.", seconds=10) from None
            self._free -= size
        try:
            yield
        finally:
            async with self._changed:
                self._free += size
                self._changed.notify_all()


def length(request: Request) -> int:
    """As the client says. Raises ``Usage``, ``TooLarge``."""
    told = request.headers.get("content-length", "")
    if not told.isdecimal():
        raise errors.Usage("An object comes with its Content-Length.")
    if int(told) > LARGEST_OBJECT:
        raise TooLarge(f"An object has {units.format_bytes(LARGEST_OBJECT)} at most.")
    return int(told)


async def read(request: Request, size: int) -> bytearray:
    """The whole body. Raises ``Usage`` where it is longer or shorter than ``size``, ``Slow``."""
    data = bytearray()
    stream = request.stream().__aiter__()
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    piece = await anext(stream, None)
                if piece is None:
                    break
                if len(data) + len(piece) > size:
                    raise TooLarge("The body is longer than its Content-Length.")
                data += piece
    except TimeoutError:
        raise Slow("The body did not come in time.") from None
    if len(data) != size:
        raise errors.Usage("The body is shorter than its Content-Length.")
    return data
