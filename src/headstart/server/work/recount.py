"""Counting a repository's objects anew: requests whose outcome was unknown have left the count a little wrong."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from headstart.server import tables
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.work.contract import Beat, place_of

_OFTEN = 1000


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """What comes and goes during the count is counted by itself, as always: it may be in the list, too, or not. So the
    next recount is right again, and none is far off."""
    place = place_of(site, job)
    its = tables.repositories.c
    mine = (its.id == place.id, its.tenant == place.tenant)
    with site.database.read() as connection:
        before = connection.execute(select(its.used_bytes, its.objects).where(*mine)).one()
    size = count = 0
    for _, length in place.store(site).list(""):
        size, count = size + length, count + 1
        if count % _OFTEN == 0:
            beat("counting", count)
    with site.database.write() as connection:
        difference = {
            "used_bytes": its.used_bytes + (size - before.used_bytes),
            "objects": its.objects + (count - before.objects),
        }
        connection.execute(update(tables.repositories).where(*mine).values(difference))
    return {"bytes": size, "objects": count, "wrong_bytes": before.used_bytes - size}
