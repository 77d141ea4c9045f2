"""Whether the server lives, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from headstart import __version__
from headstart.server.api.request import Here

router = APIRouter(prefix="/v1/health", tags=["health"])


@router.get("/live", summary="The process answers.")
def live() -> dict[str, str]:
    return {"version": __version__}


@router.get("/ready", summary="And reaches its database and its store.")
def ready(here: Here) -> dict[str, str]:
    with here.database.read() as connection:
        connection.execute(select(1))
    here.require_place()
    here.place(()).clock()
    return {"version": __version__}
