"""From a request to a call: the site, and who asks."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer

from headstart import errors
from headstart.server import credentials, limits, principal
from headstart.server.call import Call
from headstart.server.limits import Limits
from headstart.server.principal import NobodyKnown, Principal
from headstart.server.provider import Provider
from headstart.server.site import Site

#: With the prefix, browsers take it from this host alone, over TLS, for all of it. Without TLS they take none such.
_COOKIE, _PLAIN_COOKIE = "__Host-headstart", "headstart"
CSRF = "X-Csrf-Token"
SAFE = ("GET", "HEAD", "OPTIONS")

#: For the OpenAPI document: they look for nothing themselves.
_TOKEN = HTTPBearer(auto_error=False, scheme_name="token", description="Of a machine: hsa_..., hsh_...")
_SESSION = APIKeyCookie(
    name=_COOKIE,
    auto_error=False,
    scheme_name="session",
    description=f"Of a person; what changes something sends {CSRF}.",
)


def site(request: Request) -> Site:
    found: Site = request.app.state.site
    return found


def caller(
    request: Request,
    here: Annotated[Site, Depends(site)],
    _token: Annotated[object, Security(_TOKEN)],
    _session: Annotated[object, Security(_SESSION)],
) -> Call:
    """Raises ``NobodyKnown``; ``TooOften``; ``Denied`` for what a page of somebody else's made a browser send."""
    return known(request, here, request.headers.get(CSRF, ""))


def known(request: Request, here: Site, csrf: str) -> Call:
    """The same, with what the page sent back in whatever way."""
    now = here.clock()
    allowed: Limits = request.app.state.limits
    try:
        who = _principal(request, here, now)
    except NobodyKnown:
        allowed.strangers.take(limits.place(address(request)))
        raise
    request.state.who, request.state.tenant = who.id, who.tenant
    allowed.known.take(who.id)
    if who.csrf and request.method not in SAFE and not hmac.compare_digest(csrf.encode(), who.csrf.encode()):
        raise errors.Denied("The page that sent this is not of this session. Load it again.")
    return Call(who, now, address(request), request.state.id)


def stranger(request: Request) -> None:
    """For routes that anybody may ask, before anything costs something. Raises ``TooOften``."""
    allowed: Limits = request.app.state.limits
    allowed.strangers.take(limits.place(address(request)))


def _principal(request: Request, here: Site, now: float) -> Principal:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        token = credentials.parse(text)
        if token is None:
            raise NobodyKnown("That is no token of this server's.")
        with here.database.read() as connection:
            return principal.of_token(connection, token, now)
    cookie = cookie_of(request)
    if cookie is None:
        raise NobodyKnown("Log in, or send a token: Authorization: Bearer TOKEN.")
    with here.database.read() as connection:
        return principal.of_session(connection, cookie, now)


def provider(request: Request) -> Provider:
    """Raises ``NotFound`` where there is none."""
    found: Provider | None = request.app.state.provider
    if found is None:
        raise errors.NotFound("This server has no provider of OpenID Connect.")
    return found


def is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def cookie_name(request: Request) -> str:
    return _COOKIE if is_secure(request) else _PLAIN_COOKIE


def cookie_of(request: Request) -> str | None:
    return request.cookies.get(cookie_name(request))


def address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


Here = Annotated[Site, Depends(site)]
Through = Annotated[Provider, Depends(provider)]
Caller = Annotated[Call, Depends(caller)]
