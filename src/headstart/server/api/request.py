"""From a request to a call: the site, and who asks."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request

from headstart import errors
from headstart.server import credentials, principal
from headstart.server.call import Call
from headstart.server.principal import NobodyKnown, Principal
from headstart.server.site import Site

COOKIE = "headstart"
CSRF = "X-Csrf-Token"
SAFE = ("GET", "HEAD", "OPTIONS")


def site(request: Request) -> Site:
    found: Site = request.app.state.site
    return found


def caller(request: Request, here: Annotated[Site, Depends(site)]) -> Call:
    """Raises ``NobodyKnown``; ``Denied`` for what a page of somebody else's made a browser send."""
    return known(request, here, request.headers.get(CSRF, ""))


def known(request: Request, here: Site, csrf: str) -> Call:
    """The same, with what the page sent back in whatever way."""
    now = here.clock()
    who = _principal(request, here, now)
    if who.csrf and request.method not in SAFE and not hmac.compare_digest(csrf.encode(), who.csrf.encode()):
        raise errors.Denied("The page that sent this is not of this session. Load it again.")
    return Call(who, now, address(request), request.state.id)


def _principal(request: Request, here: Site, now: float) -> Principal:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        token = credentials.parse(text)
        if token is None:
            raise NobodyKnown("That is no token of this server's.")
        with here.database.read() as connection:
            return principal.of_token(connection, token, now)
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise NobodyKnown("Log in, or send a token: Authorization: Bearer TOKEN.")
    with here.database.read() as connection:
        return principal.of_session(connection, cookie, now)


def address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


Here = Annotated[Site, Depends(site)]
Caller = Annotated[Call, Depends(caller)]
