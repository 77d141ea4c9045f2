"""What is over goes from the tables: old events and figures, runs, orders, jobs and
approvals, ended sessions and tokens. And what waited for its time is done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete

from headstart.server import approvals, engine, events, figures, jobs, orders, runs, signposts, tables
from headstart.server.jobs import Job
from headstart.server.site import Site
from headstart.server.work.contract import Beat

_DAY = 86400.0
#: Ended tokens are shown for so long.
_KEPT_SECONDS = 30 * _DAY
#: Attempts are counted over much shorter times.
_ATTEMPTS_SECONDS = _DAY


def run(site: Site, job: Job, beat: Beat) -> dict[str, Any]:
    now = site.clock()
    for each in (events, figures, runs, orders, jobs, approvals):
        beat("tidying")
        with site.database.write() as connection:
            each.forget_old(connection, now)
    approved, named = approvals.due(site), signposts.put(site)
    old = {
        "sessions": delete(tables.sessions).where(tables.sessions.c.expires < now),
        "tokens": delete(tables.tokens).where(tables.tokens.c.expires < now - _KEPT_SECONDS),
        "attempts": delete(tables.attempts).where(tables.attempts.c.since < now - _ATTEMPTS_SECONDS),
        "locks": delete(tables.locks).where(tables.locks.c.until < now),
    }
    with site.database.write() as connection:
        engine.tidy(connection)
        gone = {name: connection.execute(statement).rowcount for name, statement in old.items()}
    return {"approvals": approved, "named": named, **gone}
