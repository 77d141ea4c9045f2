"""What is over goes from the tables: old events and figures, ended sessions and tokens, orders and jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete

from headstart.server import approvals, engine, events, figures, jobs, tables
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.work.contract import Beat

_DAY = 86400.0
#: Ended tokens and orders are shown for so long.
_KEPT_SECONDS = 30 * _DAY
#: Attempts are counted over much shorter times.
_ATTEMPTS_SECONDS = _DAY


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    now = site.clock()
    with site.database.write() as connection:
        events.forget_old(connection, now)
        figures.forget_old(connection, now)
        jobs.forget_old(connection, now)
        engine.tidy(connection)
    beat("tidying")
    approved = approvals.due(site)
    tokens, orders = tables.tokens, tables.orders
    old = {
        "sessions": delete(tables.sessions).where(tables.sessions.c.expires < now),
        "tokens": delete(tokens).where(tokens.c.expires < now - _KEPT_SECONDS),
        "orders": delete(orders).where(
            and_(orders.c.expires < now - _KEPT_SECONDS, orders.c.changed < now - _KEPT_SECONDS)
        ),
        "attempts": delete(tables.attempts).where(tables.attempts.c.since < now - _ATTEMPTS_SECONDS),
        "locks": delete(tables.locks).where(tables.locks.c.until < now),
    }
    with site.database.write() as connection:
        gone = {name: connection.execute(statement).rowcount for name, statement in old.items()}
    return {"approvals": approved, **gone}
