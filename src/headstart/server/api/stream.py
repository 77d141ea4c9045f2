"""``/v1/events/stream``: what happens, as server-sent events.

::

    id: 1234                                      of an event; its number, as in /v1/events
    event: happened
    data: {"id": 1234, "kind": "backup.done", ...}

    event: live                                   how a VM is of which something is under way
    data: {"id": "...", "name": "web", "view": {...}}
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from headstart import errors
from headstart.server.api.request import Caller
from headstart.server.roles import Right
from headstart.server.streams import Item, Streams

router = APIRouter(prefix="/v1", tags=["fleet"])

MEDIA = "text/event-stream"
#: Milliseconds after which a browser comes again.
_AGAIN = 2000


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {MEDIA: {}}}},
    summary="What happens, as it happens; without Last-Event-ID or after, from now on.",
)
async def stream(
    request: Request,
    call: Caller,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
    after: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
) -> StreamingResponse:
    tenant = call.who.of(Right.SEE)
    if last_event_id:
        if not last_event_id.isdecimal() or int(last_event_id) > 1 << 62:
            raise errors.Usage("Last-Event-ID is the number of an event.")
        after = int(last_event_id)
    streams: Streams = request.app.state.streams
    watched = streams.watch(tenant, after)
    # What raises does so here, where it can still be the answer.
    first = await anext(watched)
    return StreamingResponse(_lines(watched, first), media_type=MEDIA, headers={"X-Accel-Buffering": "no"})


async def _lines(watched: AsyncIterator[Item | None], first: Item | None) -> AsyncIterator[str]:
    try:
        yield f"retry: {_AGAIN}\n\n{_line(first)}"
        async for item in watched:
            yield _line(item)
    finally:
        await watched.aclose()  # type: ignore[attr-defined]


def _line(item: Item | None) -> str:
    if item is None:
        return ":\n\n"
    number = "" if item.number is None else f"id: {item.number}\n"
    kind = "live" if item.number is None else "happened"
    return f"{number}event: {kind}\ndata: {json.dumps(item.value)}\n\n"
