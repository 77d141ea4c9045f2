"""A host's own end: ``/v1/host``. Hosts connect out; nothing here reaches into one."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from headstart.server import credentials, events, figures, hosts, orders, policies, runs, snapshots, vms
from headstart.server.api.request import Caller, Here, address, stranger
from headstart.server.hosts import Newcomer
from headstart.server.orders import Told
from headstart.server.roles import Right
from headstart.server.runs import Run
from headstart.state.series import Minute

router = APIRouter(prefix="/v1/host", tags=["host"])

Moment = Annotated[float, Field(strict=True, ge=0, le=1e11)]
Size = Annotated[int, Field(strict=True, ge=0, le=1 << 62)]
Text = Annotated[str, Field(max_length=255)]
OrderId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
#: Seconds from one pulse to the next; while somebody watches, and may order something; while something is being done.
_NEXT, _NEXT_WATCHED, _NEXT_BUSY = 15.0, 5.0, 2.0
#: Characters of what a host says of itself, of one VM, or of how an order ended.
_LONGEST = 64 * 1024


def _bounded(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if found is not None and len(json.dumps(found)) > _LONGEST:
        raise ValueError(f"takes {_LONGEST} characters at most")
    return found


Bounded = Annotated[dict[str, Any], AfterValidator(_bounded)]


class Join(BaseModel):
    token: str = Field(max_length=256)
    name: str = Field(max_length=64)
    installation: str = Field(max_length=64)
    version: str = Field(max_length=32)


class Joined(BaseModel):
    token: str
    expires: float
    host: str
    tenant: str
    repository: str


class OrderTold(BaseModel):
    state: Literal["taken", "done", "failed"]
    progress: Bounded | None = None
    result: Bounded = Field(default_factory=dict)


class Pulse(BaseModel):
    version: str = Field(max_length=32)
    state: Bounded = Field(default_factory=dict)
    vms: dict[Text, Annotated[dict[str, Any] | None, AfterValidator(_bounded)]] = Field(max_length=2000)
    orders: dict[OrderId, OrderTold] = Field(default_factory=dict, max_length=100, description="Those that it has.")


class Offered(BaseModel):
    id: str
    kind: str
    vm: str | None
    arguments: dict[str, Any]


class Beat(BaseModel):
    policies: str = Field(description="The version of the document that is to be fetched.")
    next: float = Field(_NEXT, strict=True, description="Seconds until the next pulse.")
    renew: bool = Field(False, description="The token is to be replaced.")
    refused: dict[str, str] = Field(default_factory=dict, description="VMs that are not taken in, and why.")
    offered: list[Offered] = Field(default_factory=list, description="Orders to be taken.")
    orders: dict[str, str] = Field(default_factory=dict, description="The states of those that the host has.")


class Renewed(BaseModel):
    token: str
    expires: float


class RunReport(BaseModel):
    number: int = Field(strict=True, ge=1, le=1 << 62)
    vm: Text
    verb: str = Field(max_length=16)
    begun: Moment
    ended: Moment | None = None
    report: dict[str, Any]


class Snapshots(BaseModel):
    snapshots: list[dict[str, Any]] = Field(max_length=500)


class Runs(BaseModel):
    runs: list[RunReport] = Field(max_length=500)


class Known(BaseModel):
    number: int


class Measured(BaseModel):
    moment: int = Field(strict=True, ge=0, le=10**11)
    load: float | None = None
    latency: float | None = None
    state: str = Field(max_length=32)
    copied: Size
    remaining: Size
    deferred: Size


class Figures(BaseModel):
    vms: dict[Text, Annotated[list[Measured], Field(max_length=1500)]] = Field(max_length=2000)


@router.post(
    "/join", status_code=201, dependencies=[Depends(stranger)], summary="Become a host, with a token that serves once."
)
def join(request: Request, here: Here, wanted: Join) -> Joined:
    token = credentials.parse(wanted.token)
    host = Newcomer(wanted.name, wanted.installation, wanted.version)
    if token is None:
        token = credentials.Token(credentials.Kind.JOIN, "", "")
    with here.database.write() as connection:
        done = hosts.join(connection, token, host, here.clock(), address(request), request.state.id)
    return Joined(
        token=done.token.text, expires=done.expires, host=done.host, tenant=done.tenant, repository=done.repository
    )


@router.post("/pulse", summary="I am here, and my VMs are so.")
def pulse(request: Request, here: Here, call: Caller, told: Pulse) -> Beat:
    has = {order: Told(orders.State(each.state), each.progress, each.result) for order, each in told.orders.items()}
    with here.database.write() as connection:
        refused = vms.seen(connection, call, told.vms)
        # What is refused is our word, and never the host's.
        news = hosts.pulse(connection, call, told.version, {**told.state, "refused": refused})
        renew = hosts.comes_with(connection, call)
        states = orders.told(connection, call, has)
        offered = orders.waiting(connection, call)
        events.note_all(connection, call, news)
        version = policies.version_of(policies.document(connection, call.who.tenant or ""))
    watched = request.app.state.streams.watched(call.who.tenant)
    return Beat(
        policies=version,
        next=request.app.state.metrics.stretch
        * (_NEXT_BUSY if offered or _is_busy(told) else _NEXT_WATCHED if watched else _NEXT),
        renew=renew,
        refused=refused,
        offered=[Offered(**each) for each in offered],
        orders=states,
    )


def _is_busy(told: Pulse) -> bool:
    return bool(told.orders) or any(view is not None and view.get("doing") for view in told.vms.values())


@router.post("/token", status_code=201, summary="A new token, before the one in use ends.")
def renew(here: Here, call: Caller) -> Renewed:
    with here.database.write() as connection:
        token, expires = hosts.renew(connection, call)
    return Renewed(token=token.text, expires=expires)


@router.post("/leave", status_code=204, summary="No host of this server any longer: its tokens end.")
def leave(here: Here, call: Caller) -> None:
    with here.database.write() as connection:
        hosts.leave(connection, call)
        events.note(connection, call, "host.left", None, {})


@router.get("/policies", response_class=Response, summary="What this host is to do, as TOML.")
def fetch(here: Here, call: Caller, if_none_match: Annotated[str | None, Header(max_length=64)] = None) -> Response:
    tenant = call.who.of(Right.REPORT)
    with here.database.read() as connection:
        text = policies.document(connection, tenant)
    tag = f'"{policies.version_of(text)}"'
    if if_none_match == tag:
        return Response(status_code=304)
    return Response(text, headers={"ETag": tag}, media_type="application/toml")


@router.post("/runs", summary="What was done: the same may be told again.")
def report(here: Here, call: Caller, told: Runs) -> Known:
    found = [Run(run.number, run.vm, run.verb, run.begun, run.ended, run.report) for run in told.runs]
    with here.database.write() as connection:
        return Known(number=runs.take(connection, call, found))


@router.post(
    "/snapshots",
    status_code=204,
    summary="What was published, and what rehearsals have shown: the same may be told again.",
)
def published(here: Here, call: Caller, told: Snapshots) -> None:
    with here.database.write() as connection:
        runs.take_snapshots(connection, call, told.snapshots)
        snapshots.take_proofs(connection, call, told.snapshots)


@router.post("/figures", status_code=204, summary="What was measured each minute.")
def measured(here: Here, call: Caller, told: Figures) -> None:
    found = {vm: [Minute(**each.model_dump()) for each in minutes] for vm, minutes in told.vms.items()}
    with here.database.write() as connection:
        figures.take(connection, call, found)
