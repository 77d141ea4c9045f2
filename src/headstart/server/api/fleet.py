"""Hosts, VMs, snapshots, policies of the tenant, to be looked at and set."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from headstart.server import audit, events, hosts, policies, runs, snapshots, vms
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Name
from headstart.server.roles import Right

router = APIRouter(prefix="/v1", tags=["fleet"])

Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[float | None, Query(ge=0, le=1e11)]


class PolicyText(BaseModel):
    text: str = Field(max_length=policies.LONGEST, description="TOML: what stands in a [policy.NAME].")


class Assignment(BaseModel):
    policy: Name | None = Field(None, description="None: not backed up.")


@router.get("/hosts")
def list_hosts(here: Here, call: Caller) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return hosts.listed(connection, call)


@router.delete("/hosts/{host}", status_code=204)
def remove_host(here: Here, call: Caller, host: str) -> None:
    with here.database.write() as connection:
        hosts.remove(connection, call, host)


@router.get("/vms")
def list_vms(
    here: Here, call: Caller, after: Annotated[str, Query(max_length=32)] = "", limit: Limit = 1000
) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return vms.listed(connection, call, after, limit)


@router.get("/vms/{vm}")
def show_vm(here: Here, call: Caller, vm: str) -> dict[str, Any]:
    with here.database.read() as connection:
        return vms.get(connection, call, vm)


@router.delete("/vms/{vm}", status_code=204)
def remove_vm(here: Here, call: Caller, vm: str) -> None:
    with here.database.write() as connection:
        vms.remove(connection, call, vm)


@router.get("/vms/{vm}/runs")
def list_runs(here: Here, call: Caller, vm: str, since: Before = 0.0, limit: Limit = 500) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        found = vms.get(connection, call, vm)
        return runs.of_vm(connection, found["tenant"], found["name"], since or 0.0, limit)


@router.get("/snapshots")
def list_snapshots(
    here: Here,
    call: Caller,
    vm: Annotated[str | None, Query(max_length=255)] = None,
    before: Before = None,
    limit: Limit = 1000,
) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return snapshots.listed(connection, call, vm, before, limit)


@router.get("/snapshots/{snapshot}")
def show_snapshot(here: Here, call: Caller, snapshot: str) -> dict[str, Any]:
    with here.database.read() as connection:
        return snapshots.get(connection, call, snapshot)


@router.get("/policies")
def list_policies(here: Here, call: Caller) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return policies.listed(connection, call)


@router.put("/policies/{name}", status_code=204)
def put_policy(here: Here, call: Caller, name: str, wanted: PolicyText) -> None:
    with here.database.write() as connection:
        policies.put(connection, call, name, wanted.text)


@router.delete("/policies/{name}", status_code=204)
def remove_policy(here: Here, call: Caller, name: str) -> None:
    with here.database.write() as connection:
        policies.remove(connection, call, name)


@router.get("/assignments", summary="By pattern of names of VMs, the policy; the empty one is what nothing names.")
def list_assignments(here: Here, call: Caller) -> dict[str, str | None]:
    with here.database.read() as connection:
        return policies.assigned(connection, call.who.of(Right.SEE))


@router.put("/assignments", status_code=204)
def assign(here: Here, call: Caller, wanted: Assignment, pattern: Annotated[str, Query(max_length=255)] = "") -> None:
    with here.database.write() as connection:
        policies.assign(connection, call, pattern, wanted.policy)


@router.delete("/assignments", status_code=204)
def unassign(here: Here, call: Caller, pattern: Annotated[str, Query(max_length=255)] = "") -> None:
    with here.database.write() as connection:
        policies.unassign(connection, call, pattern)


@router.get("/events", summary="What the server learned after the event of this number, ascending.")
def list_events(
    here: Here, call: Caller, after: Annotated[int, Query(ge=0, le=1 << 62)] = 0, limit: Limit = 500
) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return events.after(connection, call.who.of(Right.SEE), after, limit)


@router.get("/audit", summary="Who did what, newest first.")
def list_audit(
    here: Here, call: Caller, before: Annotated[int | None, Query(ge=0, le=1 << 62)] = None
) -> list[dict[str, Any]]:
    if call.who.tenant is not None:
        call.who.require(Right.CONFIGURE)
    with here.database.read() as connection:
        return audit.page(connection, call.who.tenant, before)
