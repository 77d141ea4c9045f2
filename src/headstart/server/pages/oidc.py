"""Logging in through the provider of OpenID Connect, and linking one's account there.

The browser is sent away and comes back; what it carries is in ``crossing``. It comes back from a page of somebody
else's, and without the cookie of a session: so it is sent on by a page of ours, which the browser does not hold it
back from. That also keeps ``form-action 'self'``, which a redirection of a form to the provider would break.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from headstart import errors, plain
from headstart.server import accounts, attempts, crossing, logins, passwords, principal, problem
from headstart.server.api import session
from headstart.server.api.request import Here, Through, address, is_secure, stranger
from headstart.server.call import Call
from headstart.server.crossing import Crossing
from headstart.server.pages import login, render
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.principal import NobodyKnown
from headstart.server.provider import Account, Away, Provider
from headstart.server.site import Site

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: As that of the session, but for ``SameSite``: it has to come along from the provider's page.
_COOKIE, _PLAIN_COOKIE = "__Host-headstart-oidc", "headstart-oidc"
_AGAIN = "This login was begun in another browser or window, or too long ago. Begin again."

#: As the provider sends them; what it says of an error is not shown, since anybody can make a link with it.
Word = Annotated[str, Query(max_length=8192)]
Issuer = Annotated[str | None, Query(alias="iss", max_length=2048)]


def name_of(request: Request) -> str:
    """Empty: there is no provider."""
    found: Provider | None = request.app.state.provider
    return "" if found is None else found.name


@router.get("/login/oidc")
def begin(
    request: Request, here: Here, provider: Through, place: login.Next = "/", invitation: login.Invitation = ""
) -> Response:
    place = login.ours(place)
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        # A page of somebody else's does not log anybody in.
        return login.page(request, place=place, invitation=invitation)
    try:
        stranger(request)
        asked = crossing.begin(here.clock(), place=place, invitation=invitation)
        answer = RedirectResponse(provider.address(asked.question), 303, render.HEADERS)
    except (Away, errors.TooOften) as error:
        return _failed(request, error, place=place, invitation=invitation)
    _carry(request, answer, here, asked)
    return answer


@router.post("/settings/oidc")
def begin_link(request: Request, here: Here, call: Visitor, provider: Through, form: Sent) -> Response:
    logins.require_password(here, call, form.text("password", passwords.LONGEST))
    asked = crossing.begin(here.clock(), place="/settings?done=linked", session=call.who.session)
    answer = render.page(request, None, "bounce.html", place=provider.address(asked.question))
    _carry(request, answer, here, asked)
    return answer


@router.post("/settings/oidc/remove")
def unlink(here: Here, call: Visitor, form: Sent) -> Response:
    accounts.unlink(here, call, form.text("password", passwords.LONGEST))
    return render.go("/settings", "unlinked")


@router.get("/login/oidc/back")
def back(
    request: Request,
    here: Here,
    provider: Through,
    state: Word = "",
    code: Word = "",
    error: Word = "",
    issuer: Issuer = None,
) -> Response:
    asked = crossing.opened(here.sealer, request.cookies.get(_name(request), ""), here.clock())
    try:
        stranger(request)
        # Before anything is asked of the provider: only who was sent there gets it asked.
        if asked is None or not hmac.compare_digest(state.encode(), asked.state.encode()):
            answer = login.page(request, 401, message=_AGAIN)
        elif error or not code:
            message = f"{provider.name} has not let you in."
            answer = login.page(request, 401, place=asked.place, message=message, invitation=asked.invitation)
        else:
            answer = _done(request, here, provider, asked, code, issuer)
    except (NobodyKnown, Away, errors.TooOften) as refused:
        answer = _failed(request, refused)
    except errors.HeadstartError as refused:
        answer = render.failed(request, refused)
    answer.delete_cookie(_name(request), path="/", secure=is_secure(request), httponly=True, samesite="lax")
    return answer


def _done(request: Request, here: Site, provider: Provider, asked: Crossing, code: str, issuer: str | None) -> Response:
    allowed = attempts.of_address(address(request))
    with here.database.write() as connection:
        attempts.begin(connection, allowed, here.clock())
    account = _redeemed(request, here, provider, asked, code, issuer)
    if asked.session:
        with here.database.write() as connection:
            who = principal.of_hash(connection, asked.session, here.clock())
            accounts.link(connection, Call(who, here.clock(), address(request), request.state.id), account)
        found = None
    else:
        found = accounts.log_in(here, account, session.visit(request), asked.invitation)
    with here.database.write() as connection:
        attempts.succeeded(connection, allowed)
    answer = render.page(request, None, "bounce.html", place=asked.place)
    if found is not None:
        session.set_cookie(request, answer, found, here.clock())
    return answer


def _redeemed(
    request: Request, here: Site, provider: Provider, asked: Crossing, code: str, issuer: str | None
) -> Account:
    try:
        return provider.redeem(code, asked.question, issuer, email=bool(asked.invitation))
    except NobodyKnown as error:
        told = {"by": provider.settings.issuer, "reason": plain.line(str(error.facts.get("reason", "")))}
        with here.database.write() as connection:
            logins.refuse(connection, None, session.visit(request), here.clock(), **told)
        raise


def _failed(request: Request, error: errors.HeadstartError, place: str = "/", invitation: str = "") -> Response:
    """The page to log in, with the password that always works."""
    status = problem.status_of(error)
    return login.page(request, status, place=place, message=str(error), invitation=invitation)


def _carry(request: Request, answer: Response, here: Site, asked: Crossing) -> None:
    answer.set_cookie(
        _name(request),
        crossing.sealed(here.sealer, asked),
        max_age=int(crossing.SECONDS),
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def _name(request: Request) -> str:
    return _COOKIE if is_secure(request) else _PLAIN_COOKIE
