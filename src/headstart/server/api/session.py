"""Logging in and out, for people: ``/v1/session``."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from headstart.server import logins
from headstart.server.api.request import Caller, Here, address, cookie_name, cookie_of, is_secure, stranger
from headstart.server.logins import Attempt, Session, Visit

router = APIRouter(prefix="/v1/session", tags=["session"])


class Login(BaseModel):
    name: str = Field(max_length=64)
    password: str = Field(max_length=1024)
    code: str = Field("", max_length=16, description="Of the authenticator program, where one is set up.")


class Csrf(BaseModel):
    csrf: str = Field(description="To be sent as X-Csrf-Token with whatever changes something.")
    expires: float


class Me(BaseModel):
    id: str
    name: str
    role: str
    tenant: str | None


def log_in(request: Request, here: Here, name: str, password: str, code: str) -> Session:
    """Raises ``NobodyKnown``, ``TooOften``."""
    return logins.log_in(here, Attempt(name, password, code, visit(request)))


def visit(request: Request) -> Visit:
    return Visit(address(request), request.state.id, cookie_of(request) or "")


def set_cookie(request: Request, response: Response, session: Session, now: float) -> None:
    response.set_cookie(
        cookie_name(request),
        session.cookie,
        max_age=int(session.expires - now),
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )


def clear_cookie(request: Request, response: Response) -> None:
    # A browser takes the end of a cookie with this prefix only if it is as secure as the cookie.
    response.delete_cookie(cookie_name(request), path="/", secure=is_secure(request), httponly=True, samesite="strict")


@router.post("", status_code=201, dependencies=[Depends(stranger)], summary="Log in: the cookie is the session.")
def begin(request: Request, response: Response, here: Here, login: Login) -> Csrf:
    session = log_in(request, here, login.name, login.password, login.code)
    set_cookie(request, response, session, here.clock())
    return Csrf(csrf=session.csrf, expires=session.expires)


@router.delete("", status_code=204, summary="Log out.")
def end(request: Request, response: Response, here: Here, call: Caller) -> None:
    with here.database.write() as connection:
        logins.log_out(connection, call)
    clear_cookie(request, response)


@router.get("", summary="Who I am.")
def me(call: Caller) -> Me:
    return Me(id=call.who.id, name=call.who.name, role=call.who.role, tenant=call.who.tenant)
