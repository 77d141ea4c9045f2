"""What routes have in common in their answers: what waits for approval, and errors, as they are documented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from headstart.server.approvals import Asked

PROBLEM = "application/problem+json"


class Waiting(BaseModel):
    """Not done yet: another admin approves it, or its time comes."""

    approval: str
    second_person: bool
    due: float = Field(description="Not before that: seconds since 1970.")


class Problem(BaseModel):
    """RFC 9457."""

    title: str
    status: int
    detail: str


#: Of routes whose act may wait.
WAITING: dict[int | str, dict[str, Any]] = {202: {"model": Waiting, "description": "Asked for; not done yet."}}

_MEANINGS = {
    400: "What was asked makes no sense.",
    401: "Nobody known asks, or not any longer.",
    403: "Whoever asks has no right to it.",
    404: "There is nothing of that name, or it is somebody else's.",
    408: "The body did not come in time.",
    409: "Something is in the way, or there already.",
    412: "The object is there already.",
    413: "The body is too large.",
    416: "The object has no such range.",
    422: "The request is not formed as described here.",
    429: "Asked too often: Retry-After says when to ask again.",
    500: "A failure of the server's.",
    503: "Something that the server needs cannot be reached: ask again.",
    507: "A quota or a disk is full.",
}


def problems(statuses: Sequence[int] = tuple(_MEANINGS)) -> dict[int | str, dict[str, Any]]:
    schema = Problem.model_json_schema()
    return {status: {"description": _MEANINGS[status], "content": {PROBLEM: {"schema": schema}}} for status in statuses}


def told(asked: Asked | None) -> Response:
    """204: done. 202: it waits."""
    if asked is None:
        return Response(status_code=204)
    waiting = Waiting(approval=asked.id, second_person=asked.second_person, due=asked.due)
    return JSONResponse(waiting.model_dump(), 202)
