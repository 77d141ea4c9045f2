"""Repositories of the tenant: ``/v1/repositories``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import select

from headstart.repository import protection
from headstart.server import checking, repositories, tables
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Created, Name
from headstart.server.roles import Right

router = APIRouter(prefix="/v1/repositories", tags=["repositories"])


class NewRepository(BaseModel):
    name: Name
    immutable_days: int = Field(0, ge=0, le=protection.MAX_DAYS)


@router.get("")
def listed(here: Here, call: Caller) -> list[dict[str, Any]]:
    tenant = call.who.of(Right.SEE)
    its = tables.repositories.c
    columns = (its.id, its.name, its.created, its.used_bytes, its.objects, its.immutable_days)
    query = select(*columns, its.structure.is_not(None).label("structure")).where(its.tenant == tenant)
    with here.database.read() as connection:
        return [dict(row) for row in connection.execute(query.order_by(its.name)).mappings()]


@router.post("", status_code=201)
def create(here: Here, call: Caller, wanted: NewRepository) -> Created:
    with here.database.write() as connection:
        return Created(id=repositories.create(connection, call, wanted.name, wanted.immutable_days))


class Structure(BaseModel):
    password: str = Field(min_length=1, max_length=1024, description="Of a key that opens the structure alone.")


@router.put("/{repository}/structure", status_code=204, summary="Let the server check packs, forget, collect, verify.")
def deposit(here: Here, call: Caller, repository: str, wanted: Structure) -> None:
    checking.deposit(here, call, repository, wanted.password)


@router.delete("/{repository}/structure", status_code=204, summary="Take that password back.")
def withdraw(here: Here, call: Caller, repository: str) -> None:
    checking.withdraw(here, call, repository)
