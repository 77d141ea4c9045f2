"""The audit log: ``/v1/audit``. It is read, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from headstart.server import audit
from headstart.server.api.request import Caller, Here

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Number = Annotated[int, Query(ge=0, le=1 << 62)]
LINES = "application/x-ndjson"


@router.get("", summary="Who did what, newest first.")
def list_audit(
    here: Here, call: Caller, before: Annotated[int | None, Query(ge=0, le=1 << 62)] = None
) -> list[dict[str, Any]]:
    audit.require_reader(call)
    with here.database.read() as connection:
        return audit.page(connection, call.who.tenant, before)


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"content": {LINES: {"schema": {"type": "string"}}}}},
    summary="Oldest first, a line of JSON for each: those after a number. Fewer than the limit: there are no more yet.",
)
def export(
    here: Here,
    call: Caller,
    after: Number = 0,
    limit: Annotated[int, Query(ge=1, le=audit.LONGEST_EXPORT)] = audit.LONGEST_EXPORT,
) -> Response:
    audit.require_reader(call)
    with here.database.read() as connection:
        text = "".join(audit.lines(connection, call.who.tenant, after, limit))
    return Response(text, media_type=LINES)
