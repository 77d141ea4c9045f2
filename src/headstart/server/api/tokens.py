"""Tokens of machines: ``/v1/tokens``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headstart.server import tokens
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Name
from headstart.server.credentials import Kind
from headstart.server.roles import Role
from headstart.server.tokens import DAY, Wish

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


class NewToken(BaseModel):
    kind: Kind
    name: Name
    days: float = Field(1.0, strict=True, gt=0, le=366)
    role: Role | None = None
    repository: str | None = Field(None, max_length=64)


class Told(BaseModel):
    id: str
    token: str = Field(description="Told once.")


@router.get("")
def listed(here: Here, call: Caller) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return tokens.listed(connection, call)


@router.post("", status_code=201)
def create(here: Here, call: Caller, wanted: NewToken) -> Told:
    wish = Wish(wanted.kind, wanted.name, wanted.days * DAY, wanted.role, wanted.repository)
    with here.database.write() as connection:
        made = tokens.create(connection, call, wish, here.fingerprint)
    return Told(id=made.id, token=made.text)


@router.delete("/{token}", status_code=204, summary="Revoke: at once, for ever.")
def revoke(here: Here, call: Caller, token: str) -> None:
    with here.database.write() as connection:
        tokens.revoke(connection, call, token)
