"""The audit log."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from headstart.server import audit
from headstart.server.api.request import Here
from headstart.server.pages import render, words
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

ROWS = 100

Before = Annotated[int | None, Query(ge=0, le=1 << 62)]


@router.get("/audit")
def show(request: Request, here: Here, call: Visitor, before: Before = None) -> Response:
    audit.require_reader(call)
    with here.database.read() as connection:
        found = audit.page(connection, call.who.tenant, before, ROWS + 1)
    rows = [{**each, "told": _told(each["facts"])} for each in found[:ROWS]]
    older = rows[-1]["id"] if len(found) > ROWS else None
    return render.page(request, call, "audit.html", rows=rows, older=older, before=before)


def _told(facts: Any) -> str:
    """``name web, role admin``: without what says nothing."""
    if not isinstance(facts, dict):
        return ""
    parts = (
        f"{key.replace('_', ' ')} {_value(key, value)}" for key, value in facts.items() if value not in (None, "", [])
    )
    return ", ".join(parts)


def _value(key: str, value: Any) -> str:
    if key == "expires" and isinstance(value, float):
        return words.when(value)
    return value if isinstance(value, str) else json.dumps(value)
