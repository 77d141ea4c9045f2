"""People of the tenant, or of the site: ``/v1/users``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from headstart import errors
from headstart.server import accounts, approvals, passwords, users
from headstart.server.api.answers import WAITING, told
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Created, Name
from headstart.server.roles import Role

router = APIRouter(prefix="/v1/users", tags=["users"])


class NewUser(BaseModel):
    name: Name
    password: str | None = Field(None, min_length=passwords.SHORTEST, max_length=passwords.LONGEST)
    email: str | None = Field(
        None, max_length=255, description="Instead of a password: of the account to be let in with."
    )
    role: Role
    tenant: str | None = Field(None, max_length=64, description="By the site alone: whose first admin this is.")


class CreatedUser(Created):
    invitation: str | None = Field(None, description="Told once: a link for the one with that e-mail, for seven days.")


class WantedRole(BaseModel):
    role: Role


class Disabled(BaseModel):
    disabled: bool = Field(strict=True)


class Reset(BaseModel):
    password: str | None = Field(
        None, min_length=passwords.SHORTEST, max_length=passwords.LONGEST, description="null: the one that there is."
    )


@router.get("")
def list_users(here: Here, call: Caller) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return users.listed(connection, call)


@router.post("", status_code=201)
def create_user(here: Here, call: Caller, wanted: NewUser) -> CreatedUser:
    tenant = call.who.tenant if wanted.tenant is None else wanted.tenant
    with here.database.write() as connection:
        users.require_may_give(connection, call, wanted.role, tenant)
        if (wanted.password is None) == (wanted.email is None):
            raise errors.Usage("Give a password or an e-mail: with a password, an account is linked by the user.")
        if wanted.email is None:
            return CreatedUser(
                id=users.create(connection, call, wanted.name, wanted.password, wanted.role, tenant), invitation=None
            )
        if tenant != call.who.tenant:
            # An invitation could wait until the tenant has an admin, and be a way into what is the tenant's own.
            raise errors.Usage("An invitation is for one's own. The first admin of a tenant gets a password.")
        user, invitation = accounts.create(here, connection, call, wanted.name, wanted.email, wanted.role)
        return CreatedUser(id=user, invitation=invitation)


@router.delete("/{user}", status_code=204)
def remove_user(here: Here, call: Caller, user: str) -> None:
    with here.database.write() as connection:
        users.remove(connection, call, user)


@router.put("/{user}/role", status_code=204, responses=WAITING, summary="To make an admin may have to wait.")
def set_role(here: Here, call: Caller, user: str, wanted: WantedRole) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "user.role", {"user": user, "role": wanted.role}))


@router.put("/{user}/disabled", status_code=204, responses=WAITING, summary="Let somebody in no longer, or again.")
def set_disabled(here: Here, call: Caller, user: str, wanted: Disabled) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "user.disabled", {"user": user, "disabled": wanted.disabled}))


@router.post(
    "/{user}/reset",
    status_code=204,
    responses=WAITING,
    summary="Of another one who lost the second factor or the password: none, and a new one if given.",
)
def reset(here: Here, call: Caller, user: str, wanted: Reset) -> Response:
    with here.database.read() as connection:
        users.get(connection, call, user)
    kept = None if wanted.password is None else passwords.hashed(wanted.password)
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "user.reset", {"user": user, "password": kept}))


@router.delete("/{user}/sessions", status_code=204, summary="End all sessions of somebody's.")
def log_off(here: Here, call: Caller, user: str) -> None:
    with here.database.write() as connection:
        users.log_off(connection, call, user)
