"""Repositories: what they hold, how long nobody can remove it, and the key of their structure."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, func, select

from headstart import errors
from headstart.server import problem, repositories, structure, tables, tenants
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import render, waits
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right
from headstart.server.site import Site

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


def shut(connection: Connection, call: Call) -> list[str]:
    """Names of those that hosts store in and the server has no key of the structure of: there nothing is forgotten,
    collected or verified by itself."""
    its = tables.repositories.c
    mine = (its.tenant == call.who.of(Right.SEE), its.removed.is_(None), its.structure.is_(None), its.objects > 0)
    return list(connection.execute(select(its.name).where(*mine).order_by(its.name)).scalars())


@router.get("/repositories")
def show(request: Request, here: Here, call: Visitor) -> Response:
    with here.database.read() as connection:
        places = listed(connection, call, removed=True)
        mine = tenants.overview(connection, call)[0]
        without_key = shut(connection, call)
    url = f"{request.url.scheme}://{request.url.netloc}"
    values: dict[str, Any] = {"places": places, "mine": mine, "url": url, "shut": without_key}
    return render.page(request, call, "repositories.html", former_name=repositories.former_name, **values)


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


@router.get("/repositories/{repository}/structure")
def ask(request: Request, here: Here, call: Visitor, repository: str) -> Response:
    return _key(request, here, call, repository)


@router.post("/repositories/{repository}/structure")
def give(request: Request, here: Here, call: Visitor, form: Sent, repository: str) -> Response:
    try:
        structure.deposit(here, call, repository, form.text("password", 1024))
    except (errors.WrongPassword, errors.Usage, errors.NoRepository) as error:
        return _key(request, here, call, repository, error)
    return render.go("/repositories", "given")


@router.post("/repositories/{repository}/structure/withdraw")
def withdraw(here: Here, call: Visitor, repository: str) -> Response:
    structure.withdraw(here, call, repository)
    return render.go("/repositories", "withdrawn")


def _key(
    request: Request, here: Site, call: Call, repository: str, error: errors.HeadstartError | None = None
) -> Response:
    call.who.require(Right.CONFIGURE)
    with here.database.read() as connection:
        place = repositories.get(connection, call.who, repository)
    is_wrong = isinstance(error, errors.WrongPassword)
    wrong = "No key of this repository opens with this password." if is_wrong else str(error or "")
    status = 200 if error is None else problem.status_of(error)
    return render.page(request, call, "structure.html", status, place=place, wrong=wrong)
