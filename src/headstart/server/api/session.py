"""Logging in and out, for people: ``/v1/session``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Cookie, Request, Response
from pydantic import BaseModel, Field

from headstart.server import users
from headstart.server.api.request import COOKIE, Caller, Here, address
from headstart.server.principal import NobodyKnown
from headstart.server.users import Session

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


def log_in(here: Here, name: str, password: str, code: str, address: str) -> Session:
    """What is counted of failures stays, also when they raise."""
    wrong: NobodyKnown | None = None
    with here.database.write() as connection:
        try:
            return users.log_in(connection, here.sealer, name, password, code, here.clock(), address)
        except NobodyKnown as error:
            wrong = error
    raise wrong


def set_cookie(request: Request, response: Response, session: Session, now: float) -> None:
    response.set_cookie(
        COOKIE,
        session.cookie,
        max_age=int(session.expires - now),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


@router.post("", status_code=201, summary="Log in: the cookie is the session.")
def begin(request: Request, response: Response, here: Here, login: Login) -> Csrf:
    session = log_in(here, login.name, login.password, login.code, address(request))
    set_cookie(request, response, session, here.clock())
    return Csrf(csrf=session.csrf, expires=session.expires)


@router.delete("", status_code=204, summary="Log out.")
def end(
    response: Response, here: Here, call: Caller, cookie: Annotated[str | None, Cookie(alias=COOKIE)] = None
) -> None:
    if cookie is not None:
        with here.database.write() as connection:
            users.log_out(connection, cookie)
    response.delete_cookie(COOKIE, path="/")


@router.get("", summary="Who I am.")
def me(call: Caller) -> Me:
    return Me(id=call.who.id, name=call.who.name, role=call.who.role, tenant=call.who.tenant)
