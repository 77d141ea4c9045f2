"""What people change of themselves: ``/v1/me``."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headstart.server import accounts, logins, passwords
from headstart.server.api.request import Caller, Here

router = APIRouter(prefix="/v1/me", tags=["me"])


class Password(BaseModel):
    password: str = Field(max_length=passwords.LONGEST, description="The present one.")


class NewPassword(Password):
    new: str = Field(min_length=passwords.SHORTEST, max_length=passwords.LONGEST)


class Code(BaseModel):
    code: str = Field(max_length=16)


class Secret(BaseModel):
    """Told once. ``uri`` is for a QR code."""

    secret: str
    uri: str


class SessionShown(BaseModel):
    id: str
    address: str
    created: float
    expires: float
    this: bool


@router.put("/password", status_code=204, summary="Change the password. Other sessions end.")
def change_password(here: Here, call: Caller, wanted: NewPassword) -> None:
    logins.change_password(here, call, wanted.password, wanted.new)


@router.post("/totp", status_code=201, summary="Begin to set up a second factor; it counts when a code is confirmed.")
def begin_totp(here: Here, call: Caller, wanted: Password) -> Secret:
    secret = logins.begin_totp(here, call, wanted.password)
    return Secret(secret=secret, uri=passwords.totp_uri(secret, call.who.name))


@router.post("/totp/confirm", status_code=204, summary="From now on logging in takes a code. Other sessions end.")
def confirm_totp(here: Here, call: Caller, wanted: Code) -> None:
    with here.database.write() as connection:
        logins.confirm_totp(connection, here.sealer, call, wanted.code)


@router.post("/totp/remove", status_code=204, summary="Log in without a second factor again.")
def remove_totp(here: Here, call: Caller, wanted: Password) -> None:
    logins.remove_totp(here, call, wanted.password)


@router.post("/account/remove", status_code=204, summary="Be let in by the provider no longer. Other sessions end.")
def unlink(here: Here, call: Caller, wanted: Password) -> None:
    accounts.unlink(here, call, wanted.password)


@router.get("/sessions")
def list_sessions(here: Here, call: Caller) -> list[SessionShown]:
    with here.database.read() as connection:
        return [SessionShown(**each) for each in logins.sessions(connection, call)]


@router.delete("/sessions/{session}", status_code=204, summary="End a session of one's own.")
def end_session(here: Here, call: Caller, session: str) -> None:
    with here.database.write() as connection:
        logins.end_session(connection, call, session)
