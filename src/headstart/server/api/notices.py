"""Whom a tenant wants to be told: ``/v1/notices``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headstart.server import notices
from headstart.server.api.request import Caller, Here

router = APIRouter(prefix="/v1/notices", tags=["notices"])


Minute = Annotated[int, Field(ge=0, lt=1440)]


class Quiet(BaseModel):
    """Minutes of a day; what happens in between is told afterwards."""

    begin: Minute
    end: Minute
    zone: str = Field("UTC", max_length=64, description="A name of the time zone database.")


class Wanted(BaseModel):
    urls: list[Annotated[str, Field(min_length=1, max_length=2000)]] | None = Field(
        None, max_length=notices.MOST_URLS, description="As apprise writes them; null: those before."
    )
    kinds: list[Annotated[str, Field(max_length=32)]] = Field(default_factory=lambda: sorted(notices.KINDS))
    quiet: Quiet | None = None


class Shown(BaseModel):
    """``urls`` without what is secret in them; ``error``: why the last message was not taken."""

    urls: list[str]
    kinds: list[str]
    quiet: Quiet | None
    error: str | None


class Result(BaseModel):
    """``error`` empty: it was taken."""

    url: str
    error: str


@router.get("", summary="Where the tenant's notices go, and of what they are.")
def show(here: Here, call: Caller) -> Shown:
    return Shown(**notices.get(here, call))


@router.put("", status_code=204, summary="Set that. Nothing of what happened before the first address is told.")
def put(here: Here, call: Caller, wanted: Wanted) -> None:
    quiet = None if wanted.quiet is None else notices.Quiet(**wanted.quiet.model_dump())
    notices.put(here, call, wanted.urls, wanted.kinds, quiet)


@router.post("/test", summary="Send a test to each address, now.")
def test(here: Here, call: Caller) -> list[Result]:
    return [Result(**each) for each in notices.test(here, call)]
