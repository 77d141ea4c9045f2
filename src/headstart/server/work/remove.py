"""Taking away what is left of a removed repository: its objects, and then its row.

Nobody reaches it any longer, so nothing is added but by requests that had begun: they end within ``_SETTLE_SECONDS``.
What is immutable stays until that is over. Killed anywhere, it is repeated: what is not there is not missed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from headstart import errors
from headstart.batches import batched
from headstart.repository import layout, protection
from headstart.server import audit, jobs, signposts, tables
from headstart.server.call import Call
from headstart.server.jobs import Job
from headstart.server.principal import Principal
from headstart.server.repositories import Place
from headstart.server.roles import Role
from headstart.server.site import Site
from headstart.server.work.contract import Beat
from headstart.store.contract import Refused, Store

#: Longer than a body may take to come, and a store to answer.
_SETTLE_SECONDS = 900.0
_WINDOW, _BATCH = 8, 500
#: What is there still is then no snapshot without what it needs.
_FIRST, _LAST = (layout.SNAPSHOTS, layout.TWINS, layout.PROOFS, layout.LABELS), (layout.KEYS, layout.CONFIG_KEY)

Found = tuple[str, int]


@dataclass(slots=True)
class _Done:
    objects: int = 0
    bytes: int = 0


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    """``repository``: its id. ``waiting`` objects go with a later job, not before ``until``, seconds since 1970. Raises
    ``Busy`` while another job is at work there, ``StoreFailed``."""
    site.require_place()
    found = _removed(site, job)
    if found is None:
        return {"objects": 0, "bytes": 0, "waiting": 0, "until": None}
    place, since = found
    store, done = place.store(site), _Done()
    signposts.take_away(site, place.id)
    going, until = _sorted_out(site, place, store)
    _take_away(store, going, beat, done)
    left = list(store.list(""))
    if not left:
        # A directory that is not mounted any longer is empty, too.
        site.require_place()
        until = since + _SETTLE_SECONDS if site.clock() < since + _SETTLE_SECONDS else None
    gone = not left and until is None
    with site.database.write() as connection:
        mine = (tables.repositories.c.id == place.id, tables.repositories.c.tenant == place.tenant)
        if gone:
            connection.execute(delete(tables.repositories).where(*mine))
        else:
            size = sum(size for _, size in left)
            connection.execute(update(tables.repositories).where(*mine).values(used_bytes=size, objects=len(left)))
        _note(connection, site, job, place, done, len(left), gone=gone)
    return {"objects": done.objects, "bytes": done.bytes, "waiting": len(left), "until": until}


def _removed(site: Site, job: Job) -> tuple[Place, float] | None:
    its = tables.repositories.c
    repository, tenant = str(job.arguments.get("repository", "")), job.tenant or ""
    with site.database.read() as connection:
        query = select(tables.repositories).where(its.id == repository, its.tenant == tenant, its.removed.is_not(None))
        row = connection.execute(query).mappings().first()
        if jobs.open_of(connection, tenant, repository):
            raise errors.Busy("Another job is at work in the repository, and is ending.")
    if row is None:
        return None
    return Place(row["id"], row["tenant"], row["name"], row["immutable_days"], False), row["removed"]


def _sorted_out(site: Site, place: Place, store: Store) -> tuple[list[Found], float | None]:
    """What may go, in its order; until when the first of all others has to stay."""
    its = tables.locks.c
    with site.database.read() as connection:
        query = select(its.key, its.until).where(its.repository == place.id)
        longer: dict[str, float] = {row.key: row.until for row in connection.execute(query)}
    days = place.immutable_days
    kept, now = protection.of(days) if days else None, store.clock()
    going: list[Found] = []
    ends: list[float] = []
    for key, size, created in store.modified(""):
        end = max(created + kept.seconds, longer.get(key, 0.0)) if kept is not None and kept.covers(key) else 0.0
        if end > now:
            ends.append(end)
        else:
            going.append((key, size))
    return sorted(going, key=_order), min(ends, default=None)


def _order(found: Found) -> tuple[int, str]:
    key = found[0]
    return (0 if key.startswith(_FIRST) else 2 if key.startswith(_LAST) else 1), key


def _take_away(store: Store, going: Sequence[Found], beat: Beat, done: _Done) -> None:
    """But for what the store itself does not let go of, as one with locks of its own."""

    def take(found: Found) -> int | None:
        with contextlib.suppress(Refused):
            store.delete(found[0])
            return found[1]
        return None

    with ThreadPoolExecutor(_WINDOW) as threads:
        for some in batched(going, _BATCH):
            beat("removing", done.objects, len(going))
            sizes = [size for size in threads.map(take, some) if size is not None]
            done.objects += len(sizes)
            done.bytes += sum(sizes)


def _note(connection: Connection, site: Site, job: Job, place: Place, done: _Done, waiting: int, *, gone: bool) -> None:
    """In the tenant's log, each time that something went."""
    if done.objects or gone:
        call = Call(Principal("", job.actor, Role.SITE, place.tenant), site.clock(), "", job.id)
        facts = {"objects": done.objects, "bytes": done.bytes, "waiting": waiting}
        act = "repository.gone" if gone else "repository.objects.remove"
        audit.note(connection, call, act, place.id, job=job.id, **facts)
