"""What a policy would have done last week."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, select

from headstart import errors
from headstart.server import figures, policies, tables, vms
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import lastweek, render
from headstart.server.pages import policies as written
from headstart.server.pages.forms import Sent
from headstart.server.pages.lastweek import Replayed
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right
from headstart.state.values import Run

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: They take seconds of a processor: one at a time, and nobody waits longer.
_ONE = threading.BoundedSemaphore(1)
_WAIT_SECONDS = 15.0
#: Rounds of a week, every five minutes, and some.
_MOST_RUNS = 2500
_MOST_NAMES = 500

Vm = Annotated[str, Query(max_length=32)]


@router.get("/policies/{name}/simulate")
def show(request: Request, here: Here, call: Visitor, name: str, vm: Vm = "") -> Response:
    with here.database.read() as connection:
        known = written.get(connection, call, name)
    text = written.EXAMPLE if known is None else known["text"]
    return _page(request, here, call, name, text, vm)


@router.post("/policies/{name}/simulate")
def try_out(request: Request, here: Here, call: Visitor, form: Sent, name: str) -> Response:
    """With a text that is saved nowhere."""
    text = form.text("text", policies.LONGEST).replace("\r\n", "\n")
    with here.database.read() as connection:
        written.get(connection, call, name)
    return _page(request, here, call, name, text, form.line("vm", 32))


def _page(request: Request, here: Here, call: Call, name: str, text: str, vm: str) -> Response:
    policy, mistakes = written.find(name, text, call.now)
    found: Replayed | None = None
    message, chosen = "", None
    with here.database.read() as connection:
        listed = _vms(connection, call)
        if vm:
            chosen = vms.get(connection, call, vm)
            minutes = figures.minutes(connection, chosen["id"], call.now - lastweek.WEEK, call.now)
            runs = _runs(connection, chosen["tenant"], chosen, call.now - lastweek.WEEK)
    if chosen is not None and policy is not None:
        if not _ONE.acquire(timeout=_WAIT_SECONDS):
            raise errors.TooOften("Somebody else simulates just now. Try again in a moment.", seconds=5)
        try:
            found = lastweek.play(policy, minutes, runs, call.now)
        except errors.Usage as error:
            message = str(error)
        finally:
            _ONE.release()
    return render.page(
        request,
        call,
        "simulate.html",
        400 if mistakes else 200,
        name=name,
        text=text,
        mistakes=mistakes,
        vms=listed,
        vm=chosen,
        found=found,
        message=message,
    )


def _vms(connection: Connection, call: Call) -> Sequence[Any]:
    its = tables.vms.c
    query = select(its.id, its.name).where(its.tenant == call.who.of(Right.SEE)).order_by(its.name).limit(_MOST_NAMES)
    return connection.execute(query).all()


def _runs(connection: Connection, tenant: str, vm: Any, since: float) -> list[Run]:
    its = tables.runs.c
    query = (
        select(its.number, its.verb, its.begun, its.ended, its.error, its.report)
        .where(its.tenant == tenant, its.vm == vm["name"], its.host == vm["host"], its.begun >= since)
        .order_by(its.begun.desc())
        .limit(_MOST_RUNS)
    )
    found = []
    for number, verb, begun, ended, error, report in connection.execute(query):
        told = dict(report) if error is None else {**report, "error": error}
        found.append(Run(number, vm["name"], verb, begun, ended, told))
    return found
