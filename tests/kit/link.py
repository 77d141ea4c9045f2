"""A slow line to a server: every byte comes later, and over all connections no more than a rate pass in a direction.

Connections stand one round trip later. What is on its way of one connection is bounded, as by the window of TCP; that
TCP begins slowly is not emulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_PIECE = 16 * 1024
#: Pieces of one connection that are on their way at a time: 4 MiB.
_WINDOW = 256


class _Direction:
    """Shared by all connections."""

    def __init__(self, rate: float, delay: float) -> None:
        self._rate = rate
        self._delay = delay
        self._free = 0.0
        self.passed = 0

    def arrival(self, length: int, now: float) -> float:
        """When bytes that are sent now have arrived."""
        self._free = max(self._free, now) + length / self._rate
        self.passed += length
        return self._free + self._delay


class Link:
    """A context manager: it is listening inside. ``rate``: bytes per second each way; ``delay``: seconds one way."""

    def __init__(self, target: str, rate: float, delay: float) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._delay = delay
        self.up, self.down = _Direction(rate, delay), _Direction(rate, delay)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connected, "127.0.0.1", 0), self._loop)
        self.url = f"http://127.0.0.1:{server.result(10).sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._delay)
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            await asyncio.gather(self._carry(reader, far_writer, self.up), self._carry(far_reader, writer, self.down))
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW)

        async def take() -> None:
            data = b"begin"
            while data:
                with contextlib.suppress(OSError):
                    data = await reader.read(_PIECE)
                await pieces.put((way.arrival(len(data), self._loop.time()), data))

        async def give() -> None:
            while True:
                arrival, data = await pieces.get()
                await asyncio.sleep(arrival - self._loop.time())
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(take(), give())
