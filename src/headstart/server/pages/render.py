"""Pages and parts of pages out of templates; errors as pages, too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy import exc

from headstart import errors
from headstart.server import problem
from headstart.server.call import Call
from headstart.server.pages import boots, menu, static, words
from headstart.server.principal import NobodyKnown
from headstart.server.roles import Right, allows

_log = logging.getLogger("headstart.server")

#: Nothing from elsewhere, nothing inline: what somebody smuggles into a page stays text.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Vary": "Cookie, HX-Request",
}
#: Chosen by who looks, and kept in a cookie; else the system's.
THEMES = ("light", "dark")
THEME = "theme"

#: What a page says after something was done: only these, so that nobody's link puts words into our mouth.
DONE = {
    "saved": "Saved.",
    "made": "Made.",
    "removed": "Removed.",
    "given": "The server has the key: it forgets, collects and verifies from now on.",
    "withdrawn": "Taken back: the server has no key of the structure any longer.",
    "revoked": "Revoked: it is of no use from now on.",
    "ordered": "Ordered. The host fetches it within a minute.",
    "stopping": "Asked to stop. The host hears of it within seconds, and tells when it has ended.",
    "asked": "Asked for: somebody else has to agree, or a delay has to pass.",
    "decided": "Decided.",
    "password": "The password is changed. Other sessions have ended.",
    "linked": "Linked: that account lets you in from now on.",
    "unlinked": "The account lets you in no longer. Other sessions have ended.",
    "out": "You are logged out.",
}

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(words.FILTERS)
_environment.globals.update(static=static.address, plural=words.count, booted=boots.of)
_icons: Any = _environment.get_template("icons.html").module
_environment.globals.update(icon=_icons.icon, badge=_icons.badge, mark=_icons.mark)


def page(request: Request, call: Call | None, template: str, status: int = 200, **values: Any) -> Response:
    """A whole page. In the template there are ``me`` (a ``Principal``), ``can("ORDER")``, ``csrf``, ``now``,
    ``ago(moment)`` and ``link(path, **query)``."""
    return HTMLResponse(text(request, call, template, **values), status, HEADERS)


def text(request: Request, call: Call | None, template: str, **values: Any) -> str:
    who = None if call is None else call.who
    now = request.app.state.site.clock() if call is None else call.now
    theme = request.cookies.get(THEME, "")
    shared: dict[str, Any] = {
        "me": who,
        "csrf": "" if who is None else who.csrf,
        "can": lambda right: who is not None and allows(who.role, Right[right]),
        "now": now,
        "ago": lambda moment: words.ago(moment, now),
        "link": link,
        "here": request.url.path,
        "theme": theme if theme in THEMES else "",
        "menu": () if who is None else menu.of(who, request.url.path),
        "done": DONE.get(request.query_params.get("done", ""), ""),
    }
    return _environment.get_template(template).render({**shared, **values})


def link(path: str, /, **query: object) -> str:
    """With what has a value. Names of a guest's files that are no UTF-8 are written as the bytes that they are."""
    told = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{quote(path)}?{urlencode(told, errors='surrogateescape')}" if told else quote(path)


def go(path: str, done: str = "", /, **query: object) -> Response:
    """To another page, after something was done."""
    return RedirectResponse(link(path, done=done, **query), 303, HEADERS)


class PageRoute(APIRoute):
    """Errors become pages here; who is not logged in comes to where one does that."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except NobodyKnown:
                return _to_login(request)
            except errors.HeadstartError as error:
                return failed(request, error)
            except RequestValidationError:
                return failed(request, errors.Usage("The address of this page is wrong in some part."))
            except exc.IntegrityError:
                return failed(request, errors.TargetRefused("Somebody else made or removed the same just now."))

        return answer


def failed(request: Request, error: errors.HeadstartError) -> Response:
    status = problem.status_of(error)
    if status >= 500:
        _log.warning("%s", error, extra={"request": request.state.id})
    template = "part/failed.html" if is_part(request) else "failed.html"
    return page(request, None, template, status, message=words.said(error, 4000), status_code=status)


def install(app: FastAPI) -> None:
    """A page for what is nowhere, too, where a browser asks for one."""

    @app.exception_handler(404)
    async def nowhere(request: Request, error: Exception) -> Response:
        if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/"):
            return failed(request, errors.NotFound("There is no such page."))
        return problem.plain(404, "HTTP", "Not Found")


def is_part(request: Request) -> bool:
    """Whether a script of the page's asks, for some of it."""
    return request.headers.get("hx-request") == "true"


def _to_login(request: Request) -> Response:
    place = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if is_part(request):
        # The page that asked is shown no longer.
        return Response(status_code=204, headers={**HEADERS, "HX-Redirect": "/login"})
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # A link in a mail: the browser holds the cookie back until a page of ours asks.
        return page(request, None, "bounce.html", place=place)
    return RedirectResponse(link("/login", next="" if place == "/" else place), 303, HEADERS)
