"""Answers that hold something open while they are sent: whatever becomes of whoever asked, it is closed after."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Mapping

import anyio
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send


class Sending(StreamingResponse):
    """Of ``pieces``; then they are closed, and ``kept``, on a thread on which that may take its time. Left to itself a
    generator that was given up is closed when garbage is collected, on whatever thread: also on that of the loop, which
    would stand still meanwhile."""

    def __init__(
        self, pieces: Generator[bytes], kept: contextlib.ExitStack, headers: Mapping[str, str], media_type: str
    ) -> None:
        self._pieces = _Pieces(pieces, kept)
        super().__init__(self._pieces, headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._pieces.close)


class _Pieces:
    """One thread at a time: a generator that runs cannot be closed."""

    def __init__(self, pieces: Generator[bytes], kept: contextlib.ExitStack) -> None:
        self._pieces = pieces
        self._kept = kept
        self._lock = threading.Lock()

    def __iter__(self) -> _Pieces:
        return self

    def __next__(self) -> bytes:
        with self._lock:
            return next(self._pieces)

    def close(self) -> None:
        with self._lock, self._kept:
            self._pieces.close()
