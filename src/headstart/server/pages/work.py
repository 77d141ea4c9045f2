"""Jobs of the server's, and acts that wait for a second person or a delay."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from headstart.server import agenda, approvals, kinds, repositories
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import render, stores, wishes
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right, allows

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

ROWS = 50
#: What a form can order: it needs nothing said beside it.
_ORDERED = ("verify", "gc", "catalogue", "recount")

Before = Annotated[float | None, Query(ge=0, le=1e11)]


@router.get("/jobs")
def show(request: Request, here: Here, call: Visitor, before: Before = None) -> Response:
    with here.database.read() as connection:
        jobs = agenda.listed(connection, call, None, before, ROWS + 1)
        is_of_tenant = call.who.tenant is not None
        places = stores.listed(connection, call) if is_of_tenant else []
        asked = approvals.listed(connection, call) if is_of_tenant and allows(call.who.role, Right.CONFIGURE) else []
        waiting = [each for each in asked if each["state"] in approvals.OPEN]
        # The part of the page that moves has none of them.
        wanted = {} if render.is_part(request) else {each["id"]: wishes.of(connection, call, each) for each in waiting}
    return render.page(
        request,
        call,
        "part/jobs.html" if render.is_part(request) else "jobs.html",
        # Of a tenant's jobs the site is told less.
        jobs=[{**dict.fromkeys(agenda.SHOWN), **each, "may": _may(call, each["kind"])} for each in jobs[:ROWS]],
        older=jobs[ROWS - 1]["created"] if len(jobs) > ROWS else None,
        before=before,
        places=places,
        names={each["id"]: each["name"] for each in places},
        kinds=[each for each in _ORDERED if _may(call, each) and is_of_tenant],
        approvals=asked,
        waiting=waiting,
        wishes=wanted,
    )


def _may(call: Call, kind: str) -> bool:
    known = kinds.ALL.get(kind)
    return allows(call.who.role, (known.right if known else None) or Right.CONFIGURE)


@router.post("/jobs")
def order(here: Here, call: Visitor, form: Sent) -> Response:
    with here.database.write() as connection:
        place = repositories.get(connection, call.who, form.line("repository", 64))
        agenda.order(connection, call, place, form.line("kind", 16), {})
    return render.go("/jobs", "made")


@router.post("/jobs/{job}/cancel")
def cancel(here: Here, call: Visitor, job: str) -> Response:
    with here.database.write() as connection:
        agenda.cancel(connection, call, job)
    return render.go("/jobs", "saved")


@router.post("/approvals/{approval}/approve")
def approve(here: Here, call: Visitor, approval: str) -> Response:
    with here.database.write() as connection:
        approvals.approve(connection, call, approval)
    return render.go("/jobs", "decided")


@router.post("/approvals/{approval}/reject")
def reject(here: Here, call: Visitor, approval: str) -> Response:
    with here.database.write() as connection:
        approvals.reject(connection, call, approval)
    return render.go("/jobs", "decided")
