"""Hosts, VMs, snapshots, policies of the tenant, to be looked at and set."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from headstart.server import approvals, events, hosts, policies, runs, snapshots, vms
from headstart.server.api.answers import WAITING, told
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


@router.delete("/hosts/{host}", status_code=204, responses=WAITING)
def remove_host(here: Here, call: Caller, host: str) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "host.remove", {"host": host}))


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


@router.delete("/vms/{vm}", status_code=204, responses=WAITING)
def remove_vm(here: Here, call: Caller, vm: str) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "vm.remove", {"vm": vm}))


@router.get("/vms/{vm}/runs")
def list_runs(here: Here, call: Caller, vm: str, since: Before = 0.0, limit: Limit = 500) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return runs.of_vm(connection, vms.get(connection, call, vm), since or 0.0, limit)


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


@router.put("/policies/{name}", status_code=204, responses=WAITING)
def put_policy(here: Here, call: Caller, name: str, wanted: PolicyText) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "policy.put", {"name": name, "text": wanted.text}))


@router.delete("/policies/{name}", status_code=204, responses=WAITING)
def remove_policy(here: Here, call: Caller, name: str) -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "policy.remove", {"name": name}))


@router.get("/assignments", summary="By pattern of names of VMs, the policy; the empty one is what nothing names.")
def list_assignments(here: Here, call: Caller) -> dict[str, str | None]:
    with here.database.read() as connection:
        return policies.assigned(connection, call.who.of(Right.SEE))


@router.put("/assignments", status_code=204, responses=WAITING)
def assign(
    here: Here, call: Caller, wanted: Assignment, pattern: Annotated[str, Query(max_length=255)] = ""
) -> Response:
    arguments = {"pattern": pattern, "policy": wanted.policy}
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "policy.assign", arguments))


@router.delete("/assignments", status_code=204, responses=WAITING)
def unassign(here: Here, call: Caller, pattern: Annotated[str, Query(max_length=255)] = "") -> Response:
    with here.database.write() as connection:
        return told(approvals.ask(connection, call, "policy.unassign", {"pattern": pattern}))


@router.get("/events", summary="What the server learned after the event of this number, ascending.")
def list_events(
    here: Here, call: Caller, after: Annotated[int, Query(ge=0, le=1 << 62)] = 0, limit: Limit = 500
) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return events.after(connection, call.who.of(Right.SEE), after, limit)
