"""A VM's page: the picture of its day, how it is now, its restore points and windows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from headstart.host import picture
from headstart.host.picture import History
from headstart.load.governor import FULL_RATE
from headstart.server import figures, orders, runs, snapshots, vms
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import fleet, paint, proofs, render, windows
from headstart.server.pages.visitor import Visitor
from headstart.state.values import Run

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: Restore points of a page.
ROWS = 30
_HOUR = 3600.0
#: Orders that are shown: so many, and none that was over so long ago.
_ORDERS, _RECENT_SECONDS = 5, 86400.0
_SVG = {**render.HEADERS, "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}

Before = Annotated[float | None, Query(ge=0, le=1e11)]
Hours = Annotated[int, Query(ge=1, le=192)]
Theme = Annotated[str, Query(max_length=8)]


@router.get("/vms/{vm}")
def show(request: Request, here: Here, call: Visitor, vm: str, before: Before = None, hours: Hours = 24) -> Response:
    with here.database.read() as connection:
        row = vms.get(connection, call, vm)
        points = snapshots.listed(connection, call, row["name"], before, ROWS + 1, once=True)
        values = _live(connection, call, row)
    shown = points[:ROWS]
    return render.page(
        request,
        call,
        "vm.html",
        points=shown,
        proofs={each["id"]: proofs.of(each) for each in shown},
        older=shown[-1]["created"] if len(points) > ROWS else None,
        before=before,
        hours=hours,
        windows=windows.compare(shown),
        **values,
    )


@router.get("/vms/{vm}/live")
def live(request: Request, here: Here, call: Visitor, vm: str) -> Response:
    with here.database.read() as connection:
        values = _live(connection, call, vms.get(connection, call, vm))
    return render.page(request, call, "part/live.html", **values)


def _live(connection: Connection, call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    found = fleet.one(connection, call, row["id"])
    told = orders.listed(connection, call, found.name, limit=_ORDERS)
    recent = [each for each in told if each["host"] == found.host_id and each["changed"] > call.now - _RECENT_SECONDS]
    return {
        "vm": found,
        "view": found.view,
        "standing": found.standing,
        "full_rate": FULL_RATE,
        "orders": recent,
    }


@router.get("/vms/{vm}/picture.svg")
def draw(request: Request, here: Here, call: Visitor, vm: str, hours: Hours = 24, theme: Theme = "light") -> Response:
    since, until = call.now - hours * _HOUR, call.now
    with here.database.read() as connection:
        row = vms.get(connection, call, vm)
        minutes = figures.minutes(connection, row["id"], since, until)
        rounds, others = runs.rounds_and_others(connection, row, since - 6 * _HOUR)
    told = [_run(each) for each in (*rounds, *others)]
    note = f"the newest {len(rounds)} rounds are shown" if len(rounds) == runs.ROUNDS else ""
    drawn = picture.draw(History(row["name"], since, until, minutes, told, _zone(request), note))
    return Response(paint.dark(drawn) if theme == "dark" else drawn, headers=_SVG, media_type="image/svg+xml")


def _run(row: Mapping[str, Any]) -> Run:
    report = dict(row["report"])
    if row["error"] is not None:
        report["error"] = row["error"]
    return Run(row["number"], row["vm"], row["verb"], row["begun"], row["ended"], report)


def _zone(request: Request) -> tzinfo:
    """Of who looks: a script of the page's has told it."""
    with contextlib.suppress(Exception):
        return ZoneInfo(request.cookies.get("zone", "")[:64])
    return UTC
