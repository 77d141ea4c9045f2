"""Work on the server's side: ``/v1/jobs``, and ordered for a repository."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from headstart import errors
from headstart.server import agenda, repositories
from headstart.server.api.request import Caller, Here
from headstart.server.api.tenants import Created
from headstart.server.jobs import State

router = APIRouter(prefix="/v1", tags=["jobs"])

_LONGEST_QUARANTINE = 30 * 86400.0

SnapshotId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
VmName = Annotated[str, Field(min_length=1, max_length=255)]
Order = Literal["forget", "gc", "verify", "copy", "rehearse", "recount", "catalogue"]
#: Which kinds take which of the fields.
_TAKEN: dict[str, tuple[str, ...]] = {
    "forget": ("snapshots", "vms"),
    "gc": ("quarantine",),
    "verify": ("everything",),
    "copy": ("repository", "everything", "prune"),
    "rehearse": ("vms", "snapshots"),
}


class NewJob(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Order
    snapshots: list[SnapshotId] | None = Field(None, min_length=1, max_length=1000, description="forget, rehearse")
    vms: list[VmName] | None = Field(None, min_length=1, max_length=2000, description="forget: by the rules of these")
    quarantine: float | None = Field(
        None,
        strict=True,
        ge=0,
        le=_LONGEST_QUARANTINE,
        description="gc: seconds. Less than a day ends restores that go on.",
    )
    everything: bool | None = Field(None, strict=True, description="verify, copy: also what was read lately")
    repository: str | None = Field(None, max_length=64, description="copy: into this one; else to the second site")
    prune: bool | None = Field(None, strict=True, description="copy: remove there what is gone here")


@router.get("/jobs", summary="Jobs of the tenant; for the site, those of all, without what they are about.")
def listed(
    here: Here,
    call: Caller,
    state: State | None = None,
    before: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[dict[str, Any]]:
    with here.database.read() as connection:
        return agenda.listed(connection, call, state, before, limit)


@router.get("/jobs/{job}")
def show(here: Here, call: Caller, job: str) -> dict[str, Any]:
    with here.database.read() as connection:
        return agenda.get(connection, call, job)


@router.post("/jobs/{job}/cancel", status_code=202, summary="End it: at once where it waits, else in a few seconds.")
def cancel(here: Here, call: Caller, job: str) -> None:
    with here.database.write() as connection:
        agenda.cancel(connection, call, job)


@router.post("/repositories/{repository}/jobs", status_code=202, summary="Order a job.")
def order(here: Here, call: Caller, repository: str, wanted: NewJob) -> Created:
    arguments = wanted.model_dump(exclude={"kind"}, exclude_none=True)
    foreign = sorted(arguments.keys() - set(_TAKEN.get(wanted.kind, ())))
    if foreign:
        raise errors.Usage(f"A job of the kind '{wanted.kind}' takes no {', '.join(foreign)}.")
    with here.database.write() as connection:
        place = repositories.get(connection, call.who, repository)
        return Created(id=agenda.order(connection, call, place, wanted.kind, arguments))
