"""Tokens of programs and hosts: told once, revoked at once."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from headstart.server import tokens
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.credentials import Kind
from headstart.server.pages import people, render, stores
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import GIVEN
from headstart.server.tokens import DAY, Wish

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: Days that are offered.
_DAYS = (1, 30, 90, 365)


@router.get("/tokens")
def show(request: Request, here: Here, call: Visitor) -> Response:
    return _page(request, here, call)


def _page(request: Request, here: Here, call: Call, made: str = "") -> Response:
    with here.database.read() as connection:
        found = tokens.listed(connection, call)
        places = stores.listed(connection, call)
    return render.page(
        request,
        call,
        "tokens.html",
        tokens=[each for each in found if not each["revoked"] and each["expires"] > call.now],
        ended=sum(each["revoked"] or each["expires"] <= call.now for each in found),
        places=places,
        names={each["id"]: each["name"] for each in places},
        roles=GIVEN,
        days=_DAYS,
        made=made,
    )


@router.post("/tokens")
def create(request: Request, here: Here, call: Visitor, form: Sent) -> Response:
    days = form.number("days") or 1.0
    wish = Wish(Kind.API, form.line("name", 64), days * DAY, people.role_of(form), form.line("repository", 64) or None)
    with here.database.write() as connection:
        made = tokens.create(connection, call, wish, here.fingerprint)
    return _page(request, here, call, made.text)


@router.post("/tokens/{token}/revoke")
def revoke(here: Here, call: Visitor, token: str) -> Response:
    with here.database.write() as connection:
        tokens.revoke(connection, call, token)
    return render.go("/tokens", "revoked")
