"""People of the tenant, or of the site: ``/v1/users``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headstart.server import passwords, users
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Created, Name
from headstart.server.roles import Role

router = APIRouter(prefix="/v1/users", tags=["users"])


class NewUser(BaseModel):
    name: Name
    password: str = Field(min_length=passwords.SHORTEST, max_length=passwords.LONGEST)
    role: Role
    tenant: str | None = Field(None, description="By the site alone: whose first admin this is.")


@router.get("")
def listed(here: Here, call: Caller) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return users.listed(connection, call)


@router.post("", status_code=201)
def create(here: Here, call: Caller, wanted: NewUser) -> Created:
    tenant = call.who.tenant if wanted.tenant is None else wanted.tenant
    with here.database.write() as connection:
        return Created(id=users.create(connection, call, wanted.name, wanted.password, wanted.role, tenant))


@router.delete("/{user}", status_code=204)
def remove(here: Here, call: Caller, user: str) -> None:
    with here.database.write() as connection:
        users.remove(connection, call, user)
