"""Settings: the own password, second factor and sessions; of a tenant, whether destructive acts wait."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from sqlalchemy import select

from headstart.server import caution, entry, logins, passwords, tables
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import oidc, render, waits
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

_HOUR = 3600.0


@router.get("/settings")
def show(request: Request, here: Here, call: Visitor) -> Response:
    return _page(request, here, call)


def _page(request: Request, here: Here, call: Call, secret: str = "") -> Response:
    its = tables.users.c
    with here.database.read() as connection:
        sessions = logins.sessions(connection, call)
        linked = connection.execute(select(entry.is_linked()).where(its.id == call.who.id)).scalar()
        has_totp = connection.execute(select(its.totp.is_not(None)).where(its.id == call.who.id)).scalar()
        wanted = caution.of(connection, call.who.tenant)
    return render.page(
        request,
        call,
        "settings.html",
        sessions=sessions,
        has_totp=bool(has_totp),
        provider=oidc.name_of(request),
        linked=bool(linked),
        secret=secret,
        uri=passwords.totp_uri(secret, call.who.name) if secret else "",
        caution=wanted,
        hours=round(wanted.delay / _HOUR, 2),
        shortest=passwords.SHORTEST,
    )


@router.post("/settings/password")
def change_password(here: Here, call: Visitor, form: Sent) -> Response:
    longest = passwords.LONGEST
    logins.change_password(here, call, form.text("password", longest), form.text("new", longest))
    return render.go("/settings", "password")


@router.post("/settings/totp")
def begin_totp(request: Request, here: Here, call: Visitor, form: Sent) -> Response:
    """The page with the secret, which is shown once."""
    return _page(request, here, call, logins.begin_totp(here, call, form.text("password", passwords.LONGEST)))


@router.post("/settings/totp/confirm")
def confirm_totp(here: Here, call: Visitor, form: Sent) -> Response:
    with here.database.write() as connection:
        logins.confirm_totp(connection, here.sealer, call, form.line("code", 16))
    return render.go("/settings", "saved")


@router.post("/settings/totp/remove")
def remove_totp(here: Here, call: Visitor, form: Sent) -> Response:
    logins.remove_totp(here, call, form.text("password", passwords.LONGEST))
    return render.go("/settings", "removed")


@router.post("/settings/sessions/{session}/end")
def end_session(here: Here, call: Visitor, session: str) -> Response:
    with here.database.write() as connection:
        logins.end_session(connection, call, session)
    return render.go("/settings", "removed")


@router.post("/settings/caution")
def set_caution(here: Here, call: Visitor, form: Sent) -> Response:
    second, delay = form.line("second_person", 8) == "yes", (form.number("hours") or 0.0) * _HOUR
    with here.database.write() as connection:
        return waits.do(connection, call, "tenant.caution", "/settings", "saved", second_person=second, delay=delay)
