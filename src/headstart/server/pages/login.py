"""Logging in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from headstart import errors
from headstart.server import logins
from headstart.server.api import session
from headstart.server.api.request import Here, stranger
from headstart.server.pages import render
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.principal import NobodyKnown
from headstart.server.provider import Provider

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

Next = Annotated[str, Query(alias="next", max_length=2000)]
#: The secret of one who has no password, as an admin sent it.
Invitation = Annotated[str, Query(max_length=64, pattern="^[0-9a-f]*$")]


@router.get("/login")
def show(request: Request, place: Next = "/", invitation: Invitation = "") -> Response:
    return page(request, place=ours(place), invitation=invitation)


def page(
    request: Request,
    status: int = 200,
    *,
    place: str = "/",
    name: str = "",
    message: str = "",
    invitation: str = "",
) -> Response:
    provider: Provider | None = request.app.state.provider
    other = "" if provider is None else provider.name
    told = {"place": place, "name": name, "message": message, "invitation": invitation, "provider": other}
    return render.page(request, None, "login.html", status, **told)


@router.post("/login")
def begin(request: Request, here: Here, form: Sent) -> Response:
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise errors.Denied("The page that sent this is not of this server. Log in here.")
    name, place = form.line("name"), ours(form.text("next", 2000))
    try:
        stranger(request)
        found = session.log_in(request, here, name, form.text("password", 1024), form.line("code", 16))
    except NobodyKnown as error:
        return page(request, 401, place=place, name=name, message=str(error))
    except errors.TooOften as error:
        return page(request, 429, place=place, name=name, message=str(error))
    answer = RedirectResponse(place, 303, render.HEADERS)
    session.set_cookie(request, answer, found, here.clock())
    return answer


@router.post("/logout")
def end(request: Request, here: Here, call: Visitor) -> Response:
    with here.database.write() as connection:
        logins.log_out(connection, call)
    answer = render.go("/login", "out")
    session.clear_cookie(request, answer)
    return answer


def ours(place: str) -> str:
    """A path of this server's, and of nobody else's. Browsers take a backslash for a slash, and skip what is no
    character."""
    good = place.startswith("/") and not place.startswith("//") and "\\" not in place and place.isprintable()
    return place if good and place.isascii() else "/"
