"""Users, of the tenant or of the site."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from headstart import errors
from headstart.server import accounts, passwords, users
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import oidc, render, waits
from headstart.server.pages.forms import Form, Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import GIVEN, Right, Role

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)


@router.get("/users")
def show(request: Request, here: Here, call: Visitor) -> Response:
    return _page(request, here, call)


def _page(request: Request, here: Here, call: Call, invitation: str = "") -> Response:
    call.who.require(Right.SITE if call.who.tenant is None else Right.CONFIGURE)
    with here.database.read() as connection:
        found = users.listed(connection, call)
    roles = (Role.SITE,) if call.who.tenant is None else GIVEN
    return render.page(
        request,
        call,
        "users.html",
        users=found,
        roles=roles,
        shortest=passwords.SHORTEST,
        provider=oidc.name_of(request),
        invitation=invitation,
    )


@router.post("/users")
def create(request: Request, here: Here, call: Visitor, form: Sent) -> Response:
    """With a password; or with an invitation, which is shown once."""
    name, role, email = form.line("name", 64), role_of(form), form.line("email")
    with here.database.write() as connection:
        if not email:
            users.create(connection, call, name, _password(form), role, call.who.tenant)
            return render.go("/users", "made")
        users.require_may_give(connection, call, role, call.who.tenant)
        if _password(form):
            raise errors.Usage("Give a password or an e-mail: with a password, an account is linked by the user.")
        _, invitation = accounts.create(here, connection, call, name, email, role)
    return _page(request, here, call, invitation)


def role_of(form: Form) -> Role:
    try:
        return Role(form.line("role", 16))
    except ValueError:
        raise errors.Usage("There is no such role.") from None


def _password(form: Form) -> str:
    return form.text("password", passwords.LONGEST)


@router.post("/users/{user}/role")
def set_role(here: Here, call: Visitor, form: Sent, user: str) -> Response:
    role = role_of(form)
    with here.database.write() as connection:
        return waits.do(connection, call, "user.role", "/users", "saved", user=user, role=role)


@router.post("/users/{user}/disabled")
def set_disabled(here: Here, call: Visitor, form: Sent, user: str) -> Response:
    disabled = form.line("disabled", 8) == "yes"
    with here.database.write() as connection:
        return waits.do(connection, call, "user.disabled", "/users", "saved", user=user, disabled=disabled)


@router.post("/users/{user}/reset")
def reset(here: Here, call: Visitor, form: Sent, user: str) -> Response:
    with here.database.read() as connection:
        users.get(connection, call, user)
    kept = passwords.hashed(_password(form))
    with here.database.write() as connection:
        return waits.do(connection, call, "user.reset", "/users", "saved", user=user, password=kept)


@router.post("/users/{user}/remove")
def remove(here: Here, call: Visitor, user: str) -> Response:
    with here.database.write() as connection:
        users.remove(connection, call, user)
    return render.go("/users", "removed")
