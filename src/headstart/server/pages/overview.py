"""What is protected, what is not, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import func, select

from headstart.server import hosts, tables
from headstart.server.api.request import Here
from headstart.server.pages import complaints, fleet, render, standing, stores
from headstart.server.pages.fleet import Wish
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: VMs of a page.
ROWS = 50

Text = Annotated[str, Query(max_length=255)]
Number = Annotated[int, Query(ge=1, le=10**6)]


@router.get("/")
def show(
    request: Request,
    here: Here,
    call: Visitor,
    q: Text = "",
    show: Text = "",
    host: Text = "",
    sort: Text = fleet.SORT,
    number: Annotated[int, Query(alias="page", ge=1, le=10**6)] = 1,
) -> Response:
    if call.who.tenant is None:
        return render.go("/tenants")
    wish = Wish(q.strip().casefold(), show, host, sort)
    with here.database.read() as connection:
        everything = fleet.all_of(connection, call)
        found = fleet.chosen(everything, wish)
        pages = max(1, -(-len(found) // ROWS))
        number = min(number, pages)
        rows = found[(number - 1) * ROWS : number * ROWS]
        points = fleet.points(connection, call.who.tenant, rows)
        point_count = fleet.point_count(connection, call.who.tenant)
        its = tables.repositories.c
        used = connection.execute(select(func.sum(its.used_bytes)).where(its.tenant == call.who.tenant)).scalar()
        known = hosts.listed(connection, call)
        shut = stores.shut(connection, call)
    template = "part/vms.html" if render.is_part(request) else "overview.html"
    return render.page(
        request,
        call,
        template,
        vms=rows,
        points=points,
        counts=fleet.counts(everything),
        total=len(everything),
        count=len(found),
        page=number,
        pages=pages,
        point_count=point_count,
        used_bytes=used or 0,
        away=sum(each["away"] for each in known),
        hosts=known,
        shut=shut,
        complaints=list(complaints.of(known).values()),
        meaning=standing.MEANING,
        query={"q": q, "show": show, "host": host, "sort": sort if sort != fleet.SORT else ""},
    )
