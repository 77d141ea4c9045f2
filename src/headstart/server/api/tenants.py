"""Tenants, of the site: ``/v1/tenants``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from headstart.server import approvals, caution, ids, tenants
from headstart.server.api.answers import WAITING, told
from headstart.server.api.request import Caller, Here
from headstart.server.roles import Right

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])

Name = Annotated[str, Field(pattern=ids.NAME)]
Bytes = Annotated[int, Field(strict=True, ge=0, le=1 << 62)]
Count = Annotated[int, Field(strict=True, ge=0, le=1 << 31)]


class Created(BaseModel):
    id: str


class Quota(BaseModel):
    quota_bytes: Bytes | None = None
    quota_vms: Count | None = None


class NewTenant(Quota):
    name: Name


@router.get("", summary="Sizes and health of all tenants; of one's own.")
def listed(here: Here, call: Caller) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return tenants.overview(connection, call)


@router.post("", status_code=201, summary="Make a tenant.")
def create(here: Here, call: Caller, wanted: NewTenant) -> Created:
    with here.database.write() as connection:
        return Created(id=tenants.create(connection, call, wanted.name, wanted.quota_bytes, wanted.quota_vms))


@router.put("/{tenant}/quota", status_code=204, summary="Bound a tenant; null is no limit.")
def bound(here: Here, call: Caller, tenant: str, wanted: Quota) -> None:
    with here.database.write() as connection:
        tenants.bound(connection, call, tenant, wanted.quota_bytes, wanted.quota_vms)


class Caution(BaseModel):
    second_person: bool = Field(strict=True)
    delay_seconds: float = Field(strict=True, ge=0, le=caution.LONGEST_DELAY)


@router.get("/own/caution", summary="Whether destructive acts in one's own tenant wait, and for what.")
def show_caution(here: Here, call: Caller) -> Caution:
    with here.database.read() as connection:
        found = caution.of(connection, call.who.of(Right.SEE))
    return Caution(second_person=found.second_person, delay_seconds=found.delay)


@router.put("/own/caution", status_code=204, responses=WAITING, summary="Set that. To make it weaker waits itself.")
def set_caution(here: Here, call: Caller, wanted: Caution) -> Response:
    arguments = {"second_person": wanted.second_person, "delay": wanted.delay_seconds}
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "tenant.caution", arguments))


@router.delete("/{tenant}", status_code=204, summary="Remove a tenant that has no repositories any longer.")
def remove(here: Here, call: Caller, tenant: str) -> None:
    with here.database.write() as connection:
        tenants.remove(connection, call, tenant)
