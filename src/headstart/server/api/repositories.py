"""Repositories of the tenant: ``/v1/repositories``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import select

from headstart.repository import protection
from headstart.server import approvals, repositories, structure, tables
from headstart.server.api.answers import WAITING, told
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Created, Name
from headstart.server.roles import Right

router = APIRouter(prefix="/v1/repositories", tags=["repositories"])


class NewRepository(BaseModel):
    name: Name
    immutable_days: int = Field(0, strict=True, ge=0, le=protection.MAX_DAYS)


@router.get("")
def listed(here: Here, call: Caller) -> list[dict[str, Any]]:
    tenant = call.who.of(Right.SEE, bound=True)
    its = tables.repositories.c
    columns = (its.id, its.name, its.created, its.used_bytes, its.objects, its.immutable_days, its.removed)
    query = select(*columns, its.structure.is_not(None).label("structure")).where(its.tenant == tenant)
    if call.who.repository is not None:
        query = query.where(its.id == call.who.repository)
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
    structure.deposit(here, call, repository, wanted.password)


@router.delete("/{repository}/structure", status_code=204, summary="Take that password back.")
def withdraw(here: Here, call: Caller, repository: str) -> None:
    structure.withdraw(here, call, repository)


class Immutability(BaseModel):
    immutable_days: int = Field(strict=True, ge=0, le=protection.MAX_DAYS)


@router.put("/{repository}", status_code=204, responses=WAITING, summary="Fewer days may have to wait for approval.")
def configure(here: Here, call: Caller, repository: str, wanted: Immutability) -> Response:
    arguments = {"repository": repository, "immutable_days": wanted.immutable_days}
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "repository.configure", arguments))


@router.delete("/{repository}", status_code=204, responses=WAITING, summary="Remove it, and all that is in it.")
def remove(here: Here, call: Caller, repository: str) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "repository.remove", {"repository": repository}))


@router.delete(
    "/{repository}/snapshots/{snapshot}",
    status_code=204,
    responses=WAITING,
    summary="Forget a snapshot: a job of the server's does it, where it has the key of the structure.",
)
def forget(here: Here, call: Caller, repository: str, snapshot: str) -> Response:
    arguments = {"repository": repository, "snapshots": [snapshot]}
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "snapshot.forget", arguments))
