"""Connections that say nothing, or their headers byte by byte, do not stay.

uvicorn waits for the head of a request without end, and each byte that comes ends its time-out for kept connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Longer than hosts' pauses between two requests.
IDLE_SECONDS = 75.0
#: So long an idle peer has at the end of the server to answer TLS's farewell; it listens only when it asks again.
_FAREWELL_SECONDS = 0.5


class Impatient(H11Protocol):
    """Closed when for so long no request was being answered, whatever has come meanwhile."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since: float | None = self.loop.time()
        self._look = self.loop.call_later(IDLE_SECONDS, self._close_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def handle_events(self) -> None:
        super().handle_events()
        self._note()

    def shutdown(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
            return
        super().shutdown()
        if self._since is not None:
            self._look.cancel()
            self._look = self.loop.call_later(_FAREWELL_SECONDS, self.transport.abort)

    def _note(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._since = None

    def _close_idle(self) -> None:
        now = self.loop.time()
        if self._since is not None and now - self._since >= IDLE_SECONDS:
            self.transport.close()
            return
        wait = IDLE_SECONDS if self._since is None else self._since + IDLE_SECONDS - now
        self._look = self.loop.call_later(wait, self._close_idle)
