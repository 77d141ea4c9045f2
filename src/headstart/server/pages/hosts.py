"""Hosts: which have joined, which are away, and how one joins."""

from __future__ import annotations

import shlex

from fastapi import APIRouter, Request, Response

from headstart.server import hosts, ids, repositories, tokens
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.credentials import Kind
from headstart.server.pages import complaints, render, stores, waits
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.tokens import Wish

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: A token to join with is for now.
_SECONDS = 3600.0


@router.get("/hosts")
def show(request: Request, here: Here, call: Visitor) -> Response:
    return _page(request, here, call)


def _page(request: Request, here: Here, call: Call, command: str = "", repository: str = "") -> Response:
    with here.database.read() as connection:
        known = hosts.listed(connection, call)
        places = stores.listed(connection, call)
    return render.page(
        request,
        call,
        "hosts.html",
        hosts=known,
        complaints=complaints.of(known),
        names={each["id"]: each["name"] for each in places},
        places=places,
        command=command,
        chosen=repository,
    )


@router.post("/hosts/join")
def join(request: Request, here: Here, call: Visitor, form: Sent) -> Response:
    """The page with the command, which is shown once."""
    repository = form.line("repository", 64)
    with here.database.write() as connection:
        name = ids.new()[:8] if not form.line("name", 64) else form.line("name", 64)
        made = tokens.create(connection, call, Wish(Kind.JOIN, name, _SECONDS, repository=repository), here.fingerprint)
        place = repositories.get(connection, call.who, repository)
    words = ["headstart", "join", f"{request.url.scheme}://{request.url.netloc}", made.text]
    if form.line("name", 64):
        words += ["--name", name]
    return _page(request, here, call, shlex.join(words), place.name)


@router.post("/hosts/{host}/remove")
def remove(here: Here, call: Visitor, host: str) -> Response:
    with here.database.write() as connection:
        return waits.do(connection, call, "host.remove", "/hosts", "removed", host=host)
