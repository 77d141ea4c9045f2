"""Repositories: what they hold, how long nobody can remove it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, func, select

from headstart.server import repositories, tables, tenants
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import render, waits
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)


def listed(connection: Connection, call: Call, *, removed: bool = False) -> list[dict[str, Any]]:
    """By name, with the number of restore points in each. ``removed``: also those of which something is left."""
    tenant = call.who.of(Right.SEE)
    its, points = tables.repositories.c, tables.snapshots.c
    count = select(func.count()).select_from(tables.snapshots).where(points.repository == its.id)
    columns = (its.id, its.name, its.created, its.used_bytes, its.objects, its.immutable_days, its.removed)
    query = select(*columns, its.structure.is_not(None).label("structure"), count.scalar_subquery().label("points"))
    mine = its.tenant == tenant if removed else (its.tenant == tenant) & its.removed.is_(None)
    return [dict(row) for row in connection.execute(query.where(mine).order_by(its.name)).mappings()]


@router.get("/repositories")
def show(request: Request, here: Here, call: Visitor) -> Response:
    with here.database.read() as connection:
        places = listed(connection, call, removed=True)
        mine = tenants.overview(connection, call)[0]
    url = f"{request.url.scheme}://{request.url.netloc}"
    return render.page(
        request, call, "repositories.html", places=places, mine=mine, url=url, former_name=repositories.former_name
    )


@router.post("/repositories")
def create(here: Here, call: Visitor, form: Sent) -> Response:
    days = form.number("immutable_days") or 0
    with here.database.write() as connection:
        repositories.create(connection, call, form.line("name", 64), int(days))
    return render.go("/repositories", "made")


@router.post("/repositories/{repository}/remove")
def remove(here: Here, call: Visitor, repository: str) -> Response:
    with here.database.write() as connection:
        return waits.do(connection, call, "repository.remove", "/repositories", "removed", repository=repository)
