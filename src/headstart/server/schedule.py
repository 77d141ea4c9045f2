"""What comes by itself: so often, or after something else. However many processes think of it, it comes once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sqlalchemy import Connection, select

from headstart.batches import batched
from headstart.server import jobs, kinds, tables
from headstart.server.jobs import Wish
from headstart.server.kinds import Kind

#: After a new snapshot: those of other VMs come at about the same time.
SETTLE_SECONDS = 300.0
#: A new repository is left alone for so long.
_YOUNG_SECONDS = 3600.0
_BATCH = 500


def after_snapshot(connection: Connection, tenant: str, repository: str, vm: str, now: float) -> None:
    """Forget by the rules of its policy, in a while. Nothing where the server cannot open the repository."""
    its = tables.repositories.c
    known = connection.execute(select(its.id).where(its.id == repository, its.structure.is_not(None))).first()
    if known is not None:
        once = f"{jobs.NEXT}{kinds.FORGET.name}:{repository}"
        wish = Wish(kinds.FORGET.name, tenant, repository, {"vms": [vm]}, once=once)
        jobs.extend(connection, wish, ("vms",), now, SETTLE_SECONDS)


def missing(connection: Connection, now: float) -> list[Wish]:
    """What is due and was not thought of yet."""
    wanted = {str(wish.once): wish for wish in _due(connection, now)}
    known: set[str] = set()
    for batch in batched(wanted, _BATCH):
        known.update(connection.execute(select(tables.jobs.c.once).where(tables.jobs.c.once.in_(batch))).scalars())
    return [wish for once, wish in wanted.items() if once not in known]


def _due(connection: Connection, now: float) -> Iterator[Wish]:
    for kind in kinds.ALL.values():
        if kind.every is not None and kind.of_site:
            yield Wish(kind.name, once=_once(kind, "", now))
    its = tables.repositories.c
    query = select(its.id, its.tenant, its.structure.is_not(None).label("opens"))
    for row in connection.execute(query.where(its.removed.is_(None), its.created < now - _YOUNG_SECONDS)):
        for kind in kinds.ALL.values():
            of_it = kind.every is not None and not kind.of_site and not kind.of_removed
            if of_it and (row.opens or not kind.needs_structure):
                yield Wish(kind.name, row.tenant, row.id, once=_once(kind, row.id, now))
    # The job outlives the repository, and is none of its rows.
    for row in connection.execute(select(its.id, its.tenant).where(its.removed.is_not(None))):
        once = _once(kinds.REMOVE, row.id, now)
        yield Wish(kinds.REMOVE.name, row.tenant, None, {"repository": row.id}, once=once)


def _once(kind: Kind, whose: str, now: float) -> str:
    """The number of the period. Periods of different repositories begin at different times."""
    assert kind.every is not None
    shift = int.from_bytes(hashlib.sha256(f"{kind.name}:{whose}".encode()).digest()[:8], "big") / (1 << 64) * kind.every
    return f"{kind.name}:{whose}:{int((now - shift) // kind.every)}"
