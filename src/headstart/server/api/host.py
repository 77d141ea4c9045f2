"""A host's own end: ``/v1/host``. Hosts connect out; nothing here reaches into one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, Field

from headstart.server import credentials, figures, hosts, policies, runs, vms
from headstart.server.api.request import Caller, Here, address, stranger
from headstart.server.hosts import Newcomer
from headstart.server.principal import note_use
from headstart.server.roles import Right
from headstart.server.runs import Run
from headstart.state.series import Minute

router = APIRouter(prefix="/v1/host", tags=["host"])

Moment = Annotated[float, Field(ge=0, le=1e11)]
Size = Annotated[int, Field(ge=0, le=1 << 62)]
Text = Annotated[str, Field(max_length=255)]


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


class Pulse(BaseModel):
    version: str = Field(max_length=32)
    state: dict[str, Any] = Field(default_factory=dict)
    vms: dict[Text, dict[str, Any] | None] = Field(max_length=2000)


class Beat(BaseModel):
    """``policies``: the version of the document that is to be fetched."""

    policies: str


class RunReport(BaseModel):
    number: int = Field(ge=1, le=1 << 62)
    vm: Text
    verb: str = Field(max_length=16)
    begun: Moment
    ended: Moment | None = None
    report: dict[str, Any]


class Runs(BaseModel):
    runs: list[RunReport] = Field(max_length=500)


class Known(BaseModel):
    number: int


class Measured(BaseModel):
    moment: int = Field(ge=0, le=10**11)
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
def pulse(here: Here, call: Caller, told: Pulse) -> Beat:
    with here.database.write() as connection:
        hosts.pulse(connection, call, told.version, told.state)
        note_use(connection, call.who.id, call.now)
        vms.seen(connection, call, told.vms)
        return Beat(policies=policies.version_of(policies.document(connection, call.who.tenant or "")))


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


@router.post("/figures", status_code=204, summary="What was measured each minute.")
def measured(here: Here, call: Caller, told: Figures) -> None:
    found = {vm: [Minute(**each.model_dump()) for each in minutes] for vm, minutes in told.vms.items()}
    with here.database.write() as connection:
        figures.take(connection, call, found)
