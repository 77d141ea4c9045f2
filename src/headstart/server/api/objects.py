"""Objects of a repository: ``/v1/repositories/{repository}/objects/{key}``. What ``store.server`` speaks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from headstart.server import body, objects, repositories
from headstart.server.api.request import Caller, Here
from headstart.server.repositories import Place
from headstart.server.roles import Right
from headstart.server.settings import LARGEST_OBJECT
from headstart.server.stock import Stock

router = APIRouter(prefix="/v1/repositories/{repository}", tags=["objects"])

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
LISTED = "application/x-ndjson"


class Lock(BaseModel):
    until: float = Field(strict=True, ge=0, le=1e11, description="Seconds since 1970, by the server's clock.")


def _place(here: Here, call: Caller, repository: str) -> Place:
    with here.database.read() as connection:
        return repositories.get(connection, call.who, repository)


@router.put(
    "/objects/{key:path}",
    status_code=201,
    summary="Add an object. One that is there is never replaced.",
    openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
)
async def add(
    request: Request,
    here: Here,
    call: Caller,
    repository: str,
    key: str,
    content_digest: Annotated[str | None, Header(description="RFC 9530: sha-256=:BASE64:")] = None,
) -> Response:
    call.who.require(Right.ADD)
    place = await run_in_threadpool(_place, here, call, repository)
    objects.check_key(key)
    size = body.length(request)
    async with request.app.state.budget.lend(size):
        data = await body.read(request, size)
        await run_in_threadpool(objects.add, here, call, place, key, data, content_digest, request.app.state.checker)
    return Response(status_code=201)


@router.get(
    "/objects/{key:path}",
    response_class=Response,
    responses={200: {"content": _BYTES}, 206: {"content": _BYTES}},
    summary="An object, or a range of it.",
)
def read(
    here: Here,
    call: Caller,
    repository: str,
    key: str,
    range_: Annotated[str | None, Header(alias="range", description="bytes=FIRST-LAST")] = None,
) -> Response:
    call.who.require(Right.READ)
    store = _place(here, call, repository).store(here)
    objects.check_key(key)
    found = _RANGE.fullmatch(range_ or "")
    if found is None or int(found[2]) < int(found[1]):
        return Response(store.read(key), media_type="application/octet-stream")
    first, last = int(found[1]), int(found[2])
    data = store.read_range(key, first, min(last + 1 - first, LARGEST_OBJECT))
    if not data:
        return Response(status_code=416)
    headers = {"Content-Range": f"bytes {first}-{first + len(data) - 1}/*"}
    return Response(data, 206, headers, "application/octet-stream")


@router.delete("/objects/{key:path}", status_code=204, summary="Remove an object that nothing holds any longer.")
def remove(here: Here, call: Caller, repository: str, key: str) -> None:
    objects.remove(here, call, _place(here, call, repository), objects.check_key(key))


@router.get(
    "/objects",
    response_class=StreamingResponse,
    responses={200: {"content": {LISTED: {}}}},
    summary="Keys, sizes and times of creation: a line of JSON for each, and a last one with their count.",
)
def listing(
    here: Here, call: Caller, repository: str, prefix: Annotated[str, Query(max_length=512)] = ""
) -> StreamingResponse:
    call.who.require(Right.READ)
    store = _place(here, call, repository).store(here)
    listed = list(store.modified(prefix))

    def lines() -> Iterator[str]:
        for row in listed:
            yield json.dumps(row) + "\n"
        yield json.dumps({"objects": len(listed)}) + "\n"

    return StreamingResponse(lines(), media_type=LISTED)


@router.get("/locks/{key:path}", summary="Until when nobody can remove an object.")
def locked(here: Here, call: Caller, repository: str, key: str) -> Lock:
    call.who.require(Right.READ)
    place = _place(here, call, repository)
    with here.database.read() as connection:
        return Lock(until=Stock.of(here, place).locked_until(connection, objects.check_key(key)))


@router.put("/locks/{key:path}", status_code=204, summary="Lock an object for longer.")
def lock(here: Here, call: Caller, repository: str, key: str, wanted: Lock) -> None:
    objects.extend(here, call, _place(here, call, repository), objects.check_key(key), wanted.until)


@router.get("", summary="The repository, and what time it is for its objects.")
def show(here: Here, call: Caller, repository: str) -> dict[str, Any]:
    place = _place(here, call, repository)
    days = place.immutable_days
    return {"id": place.id, "name": place.name, "immutable_days": days, "time": place.store(here).clock()}
