"""Whether the server lives, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import select

from headstart import __version__, errors
from headstart.server import room
from headstart.server.api.request import Here

router = APIRouter(prefix="/v1/health", tags=["health"])


@router.get("/live", summary="The process answers.")
def live() -> dict[str, str]:
    return {"version": __version__}


@router.get("/ready", summary="And reaches its database and its store. 'degraded': it reads, and has no room to write.")
def ready(here: Here) -> dict[str, str]:
    """A server whose objects have no room left is not left out: what is there can be restored. One whose database
    (SQLite) has none does nothing right."""
    with here.database.read() as connection:
        connection.execute(select(1))
    here.require_place()
    full = {each.place for each in room.look(here) if each.is_full}
    if room.DATA in full and here.database.is_sqlite:
        raise errors.NoSpace("The disk of the server's data is full. Make room there.")
    if full:
        return {"version": __version__, "state": "degraded"}
    here.place(()).clock()
    return {"version": __version__, "state": "ok"}
